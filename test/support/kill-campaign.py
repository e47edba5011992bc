"""
kill-campaign.py SEED ROUNDS DIRECTORY CLI: one kill with SIGKILL in each round, at a random moment of

    writing     the daemon, while a program writes through the mount
    mount       the command, the daemon that it starts, or both, before the mount is ready
    unmount     the command, the daemon, or both: while it syncs, unmounts, sends, publishes
    recover     the command
    checkpoint  the daemon, while a program writes through the mount or nobody does, the command, or both

each followed by what a person would do next (mount again, unmount again, recover) and a comparison. What a write with O_SYNC or an
fsync has accepted must be there, and everything once unmount or recover has published it; other pages are old or new, never anything else.
At times the newest generation is exported with an empty client directory and compared too. A command that had ended before its
kill is counted apart ("too late"). Ends with 1 and a message that names the seed on the first violation, else with one line of counts.
"""
import glob
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

PAGE = 4096
SIZE = 4 << 20
PAGES = SIZE // PAGE
MOMENTS = (("writing", 6), ("mount", 4), ("unmount", 6), ("recover", 4), ("checkpoint", 6))
PATIENCE_S = 120
seed, rounds, work, cli = int(sys.argv[1]), int(sys.argv[2]), os.path.realpath(sys.argv[3]), os.path.realpath(sys.argv[4])
chance = random.Random(seed)
vm, mountpoint = f"{work}/share/vm", f"{work}/mnt"
kills, late = Counter(), Counter()
# as in bed.ts
transport = ["--transport", os.environ["ISRFS_TEST_TRANSPORT"]] if "ISRFS_TEST_TRANSPORT" in os.environ else []
durations = {"mount": 1.0, "unmount": 0.7, "recover": 0.6, "checkpoint": 0.7}
number = 0


def fail(message):
    sys.exit(f"seed {seed}, round {number}: {message}")


def start(*words, client="client"):
    return subprocess.Popen(["node", cli, "--client-dir", f"{work}/{client}", *words], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)


def end(process, *codes):
    """Its exit code, which must be one of `codes`; what it has said is kept in process.said."""
    try:
        process.said = process.communicate(timeout=PATIENCE_S)[0]
    except subprocess.TimeoutExpired:
        fail(f"isrfs {' '.join(process.args[4:])} has not ended in {PATIENCE_S} s")
    if codes and process.returncode not in codes:
        fail(f"isrfs {' '.join(process.args[4:])} ended with {process.returncode}: {process.said}")
    return process.returncode


def isrfs(*words, client="client"):
    began = time.monotonic()
    process = start(*words, client=client)
    end(process, 0)
    if words[0] in durations:
        durations[words[0]] += (time.monotonic() - began - durations[words[0]]) / 4
    return process.said


def daemons():
    """Processes that serve, or are about to serve, this campaign's mountpoint."""
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            line = open(path, "rb").read()
        except OSError:
            continue
        pid = int(path.split("/")[2])
        if b"daemon" in line and mountpoint.encode() in line and pid != os.getpid():
            found.append(pid)
    return found


def kill_all(pids):
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def wait_until(condition, what):
    limit = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > limit:
            fail(f"waited {PATIENCE_S} s for {what}")
        time.sleep(0.01)


def page_of(bytes_, index):
    return bytes(bytes_[index * PAGE:(index + 1) * PAGE])


def check(bytes_, when):
    if len(bytes_) != SIZE:
        fail(f"{when}: the disk has {len(bytes_)} bytes")
    for index in range(PAGES):
        if page_of(bytes_, index) not in allowed[index]:
            kind = "not what was accepted" if len(allowed[index]) == 1 else "neither old nor new"
            fail(f"{when}: page {index} is {kind}")


def settle():
    """What there is now is all that there may be from now on."""
    global allowed
    allowed = [{page_of(content, index)} for index in range(PAGES)]


def mounted():
    """Mounts unless it is, and compares."""
    global content
    if not state["mounted"]:
        isrfs("mount", *transport, vm, mountpoint)
        state["mounted"] = True
    with open(f"{mountpoint}/disk", "rb") as disk:
        found = bytearray(disk.read())
    check(found, "after mount")
    content = found
    settle()


def write(kill_after_s=None, seconds=0.2):
    """Writes through the mount. With kill_after_s the daemon is killed meanwhile."""
    global content
    ended = threading.Event()
    pids = daemons()
    if len(pids) != 1:
        fail(f"{len(pids)} daemons serve the mount")

    def end_later():
        time.sleep(seconds if kill_after_s is None else kill_after_s)
        if kill_after_s is not None:
            kill_all(pids)
        ended.set()

    synced = os.open(f"{mountpoint}/disk", os.O_RDWR | os.O_SYNC)
    buffered = os.open(f"{mountpoint}/disk", os.O_RDWR)
    thread = threading.Thread(target=end_later)
    thread.start()
    try:
        while not ended.is_set():
            at = chance.randrange(SIZE - 20 * PAGE)
            length = chance.randint(1, 20 * PAGE)
            if chance.random() < 0.7:  # whole pages
                at -= at % PAGE
                length = max(PAGE, length - length % PAGE)
            written = chance.randbytes(length) if chance.random() < 0.9 else bytes(length)
            after = bytearray(content)
            after[at:at + length] = written
            touched = range(at // PAGE, (at + length - 1) // PAGE + 1)
            for index in touched:
                allowed[index].add(page_of(after, index))
            accepted = chance.random() < 0.5
            os.pwrite(synced if accepted else buffered, written, at)
            content = after
            if accepted:
                for index in touched:
                    allowed[index] = {page_of(content, index)}
            if chance.random() < 0.05:
                os.fsync(buffered)
                settle()
    except OSError:
        if kill_after_s is None:
            raise
    thread.join()
    for descriptor in (synced, buffered):
        try:
            os.close(descriptor)  # sends what is buffered: a close is accepted too
            if kill_after_s is None:
                settle()
        except OSError:
            if kill_after_s is None:
                raise
    if kill_after_s is not None:
        state["mounted"] = False
        wait_until(lambda: not daemons(), "the killed daemon to end")


def leave_session():
    """A session that is left behind: what a crash leaves."""
    mounted()
    write()
    kill_all(daemons())
    wait_until(lambda: not daemons(), "the killed daemon to end")
    state["mounted"] = False


def kill_during(command, *words):
    """Runs a command and kills at a random moment of it. Returns the process, ended, and who was killed."""
    who = "command" if command == "recover" else chance.choice(("both", "daemon", "command"))
    process = start(command, *words)
    time.sleep(0.08 + chance.random() * durations[command])
    victims = daemons()
    if process.poll() is not None or (who == "daemon" and not victims):
        late[command] += 1  # or too early: no daemon yet
        end(process, 0)
        return process, "nobody"
    if who != "daemon":
        process.kill()
    if who != "command":
        kill_all(victims)
    end(process)
    kills[command] += 1
    return process, who


def kill_while_writing():
    mounted()
    write(kill_after_s=chance.random() * 0.5)
    kills["writing"] += 1


def kill_in_mount():
    if chance.random() < 0.6:
        leave_session()
    elif state["mounted"]:
        isrfs("unmount", mountpoint)
        state["mounted"] = False
    process, who = kill_during("mount", *transport, vm, mountpoint)
    if who == "nobody" or (who == "daemon" and process.returncode == 0):
        state["mounted"] = who == "nobody"
        wait_until(lambda: who == "nobody" or not daemons(), "the killed daemon to end")
        return
    # A daemon whose command has died gives the start up, or is ready and stays. (The command may just have ended with 0.)
    wait_until(lambda: not daemons() or is_served(), "an orphaned daemon to be ready or to end")
    state["mounted"] = bool(daemons())


def is_served():
    """Whether the daemon has reached its mounted state, as it says itself."""
    asked = start("status", mountpoint, "--json")
    return end(asked) == 0 and json.loads(asked.said)["state"] == "mounted"


def kill_in_unmount():
    mounted()
    write()
    process, who = kill_during("unmount", mountpoint)
    state["mounted"] = False
    if who == "nobody":
        return
    if who == "daemon" and process.returncode not in (0, 1, 5):
        fail(f"unmount whose daemon was killed ended with {process.returncode}: {process.said}")
    if who == "command":  # what was asked for goes on, or was never asked for
        again = start("unmount", mountpoint)
        if end(again, 0, 1) == 1 and "is not an isrfs mount" not in again.said:
            fail(f"the second unmount: {again.said}")
        wait_until(lambda: not daemons(), "the unmounting daemon to end")
        if again.returncode == 1 and "left behind" not in isrfs("recover", vm):
            fail("an unmount whose command was killed has left a session behind")
        if chance.random() < 0.3:
            check_export("after an unmount whose command was killed")
        return
    # A command that died before it had asked leaves no daemon either: it was killed as well.
    wait_until(lambda: not daemons(), "the killed daemon to end")


def kill_in_recover():
    leave_session()
    kill_during("recover", vm)


def kill_in_checkpoint():
    mounted()
    write()
    if chance.random() < 0.3:  # one that nobody kills: everything that was written is in it
        isrfs("checkpoint", mountpoint)
        check_export("a checkpoint")
        write()
    if chance.random() < 0.5:
        process = start("checkpoint", mountpoint)
        write(kill_after_s=0.08 + chance.random() * durations["checkpoint"])
        if end(process, 0, 1, 5) == 0:
            late["checkpoint"] += 1  # the daemon was killed all the same
        kills["checkpoint"] += 1
        return
    process, who = kill_during("checkpoint", mountpoint)
    if who in ("daemon", "both"):
        if who == "daemon" and process.returncode not in (0, 1, 5):
            fail(f"checkpoint whose daemon was killed ended with {process.returncode}: {process.said}")
        state["mounted"] = False
        wait_until(lambda: not daemons(), "the killed daemon to end")
    elif chance.random() < 0.5:  # the checkpoint goes on without its command: a suspend comes after it, or instead of it
        isrfs("unmount", mountpoint)
        state["mounted"] = False
        check_export("after a suspend in the middle of a checkpoint")


def check_export(when):
    """What the share alone has, seen by a client that has nothing."""
    for name in ("out", "other"):
        shutil.rmtree(f"{work}/{name}", ignore_errors=True)
    isrfs("export", vm, f"{work}/out", client="other")
    with open(f"{work}/out/disk", "rb") as disk:
        check(disk.read(), when)


def next_step():
    """What a person does after a crash: mounts again, which compares, or recovers first."""
    if not state["mounted"] and chance.random() < 0.4:
        isrfs("recover", vm)
        if chance.random() < 0.3:
            check_export("after recover")
    mounted()


ACTIONS = {"writing": kill_while_writing, "mount": kill_in_mount, "unmount": kill_in_unmount, "recover": kill_in_recover,
           "checkpoint": kill_in_checkpoint}
for name in ("src", "mnt", "share"):
    os.makedirs(f"{work}/{name}", exist_ok=True)
state = {"mounted": False}
content = bytearray(chance.randbytes(SIZE))
settle()
with open(f"{work}/src/disk", "wb") as disk:
    disk.write(content)
isrfs("import", f"{work}/src", vm)
began = time.monotonic()

bag = [moment for moment, weight in MOMENTS for _ in range(weight)]
turns = []
while sum(kills.values()) < rounds:
    number = sum(kills.values()) + 1
    turns = turns or chance.sample(bag, len(bag))
    moment = turns.pop()
    ACTIONS[moment]()
    next_step()
    if number % 25 == 0:  # also keeps the share small
        if state["mounted"]:
            isrfs("unmount", mountpoint)
            state["mounted"] = False
        isrfs("check", vm, "--read-data")
        isrfs("prune", vm, "--keep", "3", "--grace", "0s", "--yes")
        check_export("after prune")
        print(f"round {number}: {dict(kills)}", file=sys.stderr, flush=True)

mounted()
isrfs("unmount", mountpoint)
check_export("after the last suspend")
isrfs("check", vm, "--read-data")
by_moment = ", ".join(f"{kills[moment]} {moment}" for moment, _ in MOMENTS)
took = time.monotonic() - began
print(f"seed {seed}: {sum(kills.values())} kills ({by_moment}), {sum(late.values())} too late, "
      f"{took / max(1, sum(kills.values())):.1f} s each, 0 violations")
