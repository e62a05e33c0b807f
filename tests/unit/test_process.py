"""Whether the process that owned a run is still there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from msgspec.structs import replace

from cano._process import dead, here, new_owner, started

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what is known differs")


def test_every_owner_is_another() -> None:
    """Two scopes of one process are two owners, both alive."""
    one, two = new_owner(), new_owner()
    assert one.id != two.id
    assert (os.getpid(), here()) == (one.pid, one.host)
    assert not dead(one)
    assert not dead(two)


def test_an_owner_can_be_read() -> None:
    """The name of an owner says machine and process, for whoever has to look."""
    assert f":{os.getpid()}:" in new_owner().id


def test_a_process_that_is_gone_is_dead() -> None:
    """Once a process has ended and was waited for, its owners are dead."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = replace(new_owner(), pid=child.pid, started=started(child.pid))
    assert not dead(owner)
    child.communicate()
    assert dead(owner)


def test_a_zombie_is_dead() -> None:
    """A process that ended and was not waited for yet holds nothing any more."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = replace(new_owner(), pid=child.pid, started=started(child.pid))
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert dead(owner)
    child.communicate()


def test_a_number_used_again_is_another_process() -> None:
    """The same pid with another start belongs to somebody else: the owner is dead."""
    assert dead(replace(new_owner(), started="1"))


def test_of_other_machines_nothing_is_known() -> None:
    """Only the lease decides about an owner elsewhere, or in another container."""
    assert not dead(replace(new_owner(), host="elsewhere", pid=2**22 - 1))


def test_a_process_of_somebody_else_lives() -> None:
    """A process that may not be signalled is there."""
    assert not dead(replace(new_owner(), pid=1, started=started(1)))


def test_nobody_started_at_no_time() -> None:
    """Of a process that is not there no start is known."""
    assert "" == started(2**22 - 1)
