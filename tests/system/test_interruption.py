import subprocess
import sys

import psutil
import pytest

from longvale.system.interruption import end_children

#: A process with two children: the second is taken for the tracker of shared memory, the first is not.
PARENT = """
import subprocess, sys

def start(*options):
    process = subprocess.Popen([sys.executable, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()  # until then the system may not know its command line
    return process

worker = start("-Wignore:resource_tracker:UserWarning", "-c", "print(flush=True); input()")
tracker = start("-c", "'multiprocessing.resource_tracker'; print(flush=True); input()")
print(tracker.pid, flush=True)
print(worker.wait(), flush=True)
input()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="asks for a process of another")
def test_all_children_end_but_the_tracker_of_shared_memory():
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        tracker = psutil.Process(int(parent.stdout.readline()))
        end_children(parent.pid)
        assert parent.stdout.readline() == "-9\n"
        assert tracker.status() != psutil.STATUS_ZOMBIE
        parent.kill()
