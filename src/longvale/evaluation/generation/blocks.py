"""Questions in groups, videos read ahead of the questions about them, and work in parallel."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import groupby, islice
from typing import TypeVar

from ...tasks import Question

Item = TypeVar("Item")
Read = TypeVar("Read")

#: Number of threads that decode videos ahead, and of decoded videos that wait: one takes up to 100 MB.
READERS = 2


def video_blocks(asked: Iterable[Question], videos: int) -> Iterator[list[Question]]:
    """Yield the questions of `videos` videos at a time: few enough to keep their features, enough to fill batches.

    Example:
        >>> asked = [Question(video_id, "dense_captioning", None, "", "") for video_id in "aabbbc"]
        >>> ["".join(question.video_id for question in block) for block in video_blocks(asked, 2)]
        ['aabbb', 'c']
    """
    of_videos = (list(group) for _, group in groupby(asked, key=lambda question: question.video_id))
    for block in batched(of_videos, videos):
        yield [question for group in block for question in group]


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of `size` items; the last one may be shorter (`itertools.batched` needs Python 3.12)."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def read_ahead(
    items: Iterable[Item], read: Callable[[Item], Read], readers: int = READERS
) -> Iterator[tuple[Item, Future[Read]]]:
    """Yield each item with the result of `read`, while threads read the next `readers` items.

    Args:
        items: such as ids of videos, in the order in which they are needed.
        read: function that is called in threads; decoders run beside the model there. Its errors are raised by
            `result` of the future.
        readers: number of threads.

    Example:
        >>> [(name, length.result()) for name, length in read_ahead(["a", "bcd"], len)]
        [('a', 1), ('bcd', 3)]
    """
    with ThreadPoolExecutor(readers, thread_name_prefix="longvale-reader") as pool:
        waiting: deque[tuple[Item, Future[Read]]] = deque()
        try:
            for item in items:
                waiting.append((item, pool.submit(read, item)))
                if len(waiting) > readers:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            for _, future in waiting:
                future.cancel()


def in_parallel(tasks: Iterable[Callable[[], Item]], count: int) -> Iterator[Item]:
    """Yield the results of tasks as they complete; several are in progress, in threads.

    After a failure no other task begins. The results of those in progress are yielded before the error is raised, so
    that no finished work is lost.

    Args:
        tasks: functions; the next one is taken when one completes.
        count: number of tasks in progress; with 1, they are called here, one after the other.

    Raises:
        Exception: the first error of a task.

    Example:
        >>> sorted(in_parallel([lambda: 1, lambda: 2, lambda: 3], 2))
        [1, 2, 3]
    """
    if count == 1:
        for task in tasks:
            yield task()
        return
    pool = ThreadPoolExecutor(count, thread_name_prefix="longvale-task")
    waiting = iter(tasks)
    failure: BaseException | None = None
    try:
        running = {pool.submit(task) for task in islice(waiting, count)}
        while running:
            complete, running = wait(running, return_when=FIRST_COMPLETED)
            for future in complete:
                if error := future.exception():
                    failure = failure or error
                else:
                    yield future.result()
            if failure is None:
                running |= {pool.submit(task) for task in islice(waiting, len(complete))}
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    if failure is not None:
        raise failure
