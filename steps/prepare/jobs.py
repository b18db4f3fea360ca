"""Chunks over several processes: one thread each, quiet on Ctrl-C, gone when the parent is gone."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_context, parent_process

from steps.prepare.chunks import Chunk, process_chunk
from utils.errors import UserError


def process_all(chunks: list[Chunk], jobs: int) -> Iterator[tuple[str, int]]:
    """`process_chunk` of each, yielding (name, utterances) as they finish; errors of workers arrive as raised there.

    On an error or Ctrl-C the chunks under way are finished (a second or two) and kept, the others are not begun.
    """
    jobs = min(jobs, len(chunks))
    if jobs <= 1:
        yield from map(process_chunk, chunks)
        return
    executor = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_start_worker)
    try:
        waiting = [executor.submit(process_chunk, chunk) for chunk in chunks]
        for done in as_completed(waiting):
            yield done.result()
    except BrokenProcessPool:
        raise UserError(
            "A worker process was killed, probably for want of memory: give the same command again with fewer --jobs."
        ) from None
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """One thread a worker; Ctrl-C is the parent's to handle; a worker whose parent was killed ends itself."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    sentinel = parent_process().sentinel
    threading.Thread(target=lambda: (connection.wait([sentinel]), os._exit(1)), daemon=True).start()
