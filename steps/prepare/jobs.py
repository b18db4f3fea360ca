"""Chunks over several processes: one thread each, quiet on Ctrl-C, gone when the parent is gone.

Not concurrent.futures: in Python 3.10 its executor hangs when a worker is killed while a large task is being sent.
"""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections.abc import Iterator
from multiprocessing import connection, get_context, parent_process

from steps.prepare.chunks import Chunk, process_chunk
from utils.errors import UserError


def process_all(chunks: list[Chunk], jobs: int) -> Iterator[tuple[str, int]]:
    """`process_chunk` of each, yielding (name, utterances) as they finish; errors of workers arrive as raised there.

    On an error or Ctrl-C the chunks under way are finished (a second or two) and kept, the others are not begun.
    `UserError` when a worker was killed.
    """
    jobs, rest = min(jobs, len(chunks)), iter(chunks)
    if jobs <= 1:
        yield from map(process_chunk, rest)
        return
    workers = dict(_start_worker() for _ in range(jobs))
    try:
        busy = [link for link in workers if _send_next(link, rest)]
        while busy:
            for link in connection.wait(busy):
                yield _receive(link)
                if not _send_next(link, rest):
                    busy.remove(link)
    finally:
        for link in workers:
            link.close()
        for process in workers.values():
            process.join()


def _start_worker() -> tuple[connection.Connection, object]:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: Ctrl-C is the parent's to handle
    process.start()
    signal.signal(signal.SIGINT, handler)
    theirs.close()  # so that the worker's death is the end of our side, too
    return ours, process


def _send_next(link: connection.Connection, rest: Iterator[Chunk]) -> bool:
    """Give a worker its next chunk; False when none is left."""
    chunk = next(rest, None)
    if chunk is None:
        return False
    try:
        link.send(chunk)
    except OSError:
        raise _killed() from None
    return True


def _receive(link: connection.Connection) -> tuple[str, int]:
    try:
        result, error, trace = link.recv()
    except (EOFError, OSError):
        raise _killed() from None
    if error is not None:
        raise error from RuntimeError(f"in a worker process:\n{trace}")
    return result


def _killed() -> UserError:
    return UserError(
        "A worker process was killed, probably for want of memory: give the same command again with fewer --jobs."
    )


def _serve(link: connection.Connection) -> None:
    """A worker: chunks in, (result, error, traceback) out, until the parent closes the link or dies."""
    import torch

    torch.set_num_threads(1)
    sentinel = parent_process().sentinel
    threading.Thread(target=lambda: (connection.wait([sentinel]), os._exit(1)), daemon=True).start()
    try:
        while True:
            chunk = link.recv()
            try:
                answer = (process_chunk(chunk), None, "")
            except Exception as error:
                answer = (None, error, traceback.format_exc())
            link.send(answer)
    except (EOFError, OSError):
        pass  # the parent wants nothing more
