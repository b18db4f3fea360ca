"""Tasks over several processes: one thread each, quiet on Ctrl-C, gone when the parent is gone.

Not concurrent.futures: in Python 3.10 its executor hangs when a worker is killed while a large task is being sent.
"""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from multiprocessing import connection, get_context, parent_process
from typing import TypeVar

from utils.errors import UserError

Task, Result = TypeVar("Task"), TypeVar("Result")


def process_all(work: Callable[[Task], Result], tasks: Iterable[Task], jobs: int) -> Iterator[Result]:
    """`work` of each task, yielding results as they finish; errors of workers arrive as raised there.

    Tasks are taken from their iterable when a process is free. `work` is sent to each process once (pickled). On an
    error or Ctrl-C the tasks under way are finished (a second or two), the others are not begun.
    `UserError` when a worker was killed.
    """
    rest = iter(tasks)
    first = list(islice(rest, jobs))
    rest = chain(first, rest)
    if len(first) <= 1:
        yield from map(work, rest)
        return
    workers = dict(_start_worker(work) for _ in first)
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


def _start_worker(work: Callable) -> tuple[connection.Connection, object]:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, work), daemon=True)
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: Ctrl-C is the parent's to handle
    process.start()
    signal.signal(signal.SIGINT, handler)
    theirs.close()  # so that the worker's death is the end of our side, too
    return ours, process


def _send_next(link: connection.Connection, rest: Iterator) -> bool:
    """Give a worker its next task; False when none is left."""
    task = next(rest, None)
    if task is None:
        return False
    try:
        link.send(task)
    except OSError:
        raise _killed() from None
    return True


def _receive(link: connection.Connection):
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


def _serve(link: connection.Connection, work: Callable) -> None:
    """A worker: tasks in, (result, error, traceback) out, until the parent closes the link or dies."""
    import torch

    torch.set_num_threads(1)
    sentinel = parent_process().sentinel
    threading.Thread(target=lambda: (connection.wait([sentinel]), os._exit(1)), daemon=True).start()
    try:
        while True:
            task = link.recv()
            try:
                answer = (work(task), None, "")
            except Exception as error:
                answer = (None, error, traceback.format_exc())
            link.send(answer)
    except (EOFError, OSError):
        pass  # the parent wants nothing more
