"""glibc keeps few heaps for the page's threads, and large buffers go back to the system."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

from deadlines import stretched
from flagpost_consumer.web.heap import HEAPS, LARGE_BYTES

THREADS = 12
PROGRAM = f"""
import ctypes, json, sys, threading
from xml.etree import ElementTree
from flagpost_consumer.web.heap import keep_heap_small

if sys.argv[1] == "small":
    keep_heap_small()
c = ctypes.CDLL(None)
c.malloc.restype = c.fopen.restype = ctypes.c_void_p
c.malloc.argtypes, c.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
taken, together = [], threading.Barrier({THREADS})

def take():
    together.wait()
    large = c.malloc({4 * LARGE_BYTES})
    c.free(large)  # from then on glibc itself would put buffers of this size onto a heap
    taken.extend([c.malloc({2 * LARGE_BYTES}), c.malloc(1_000)])
    together.wait()

threads = [threading.Thread(target=take) for _ in range({THREADS})]
for thread in threads: thread.start()
for thread in threads: thread.join()
file = ctypes.c_void_p(c.fopen(sys.argv[2].encode(), b"w"))
c.malloc_info(0, file)
c.fclose(file)
told = ElementTree.parse(sys.argv[2]).getroot()
beside = next(each for each in told.findall("total") if each.get("type") == "mmap")
print(json.dumps([len(told.findall("heap")), int(beside.get("count"))]))
"""


def heaps_and_buffers(tmp_path_name: str, how: str) -> tuple[int, int]:
    """Return the number of heaps, and the number of buffers outside of them."""
    command = [sys.executable, "-c", PROGRAM, how, tmp_path_name]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=stretched(60))
    heaps, beside = json.loads(done.stdout)
    return heaps, beside


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the names are glibc's")
def test_threads_share_few_heaps_and_large_buffers_go_back(tmp_path_factory: pytest.TempPathFactory) -> None:
    file = str(tmp_path_factory.mktemp("heap") / "info.xml")
    many, _ = heaps_and_buffers(file, "as it is")
    few, beside = heaps_and_buffers(file, "small")
    assert many > few
    assert few <= HEAPS
    assert beside >= THREADS
