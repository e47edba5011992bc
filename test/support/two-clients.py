"""
two-clients.py SEED ROUNDS DIRECTORY CLI: two client directories share one VM on one share. In each round one of them (or both at once)
does something at random: mounts, writes with O_SYNC, suspends, is killed (also in the middle of a mount, a suspend, a recover) or
stopped with SIGSTOP (also in the middle of a suspend), recovers, discards, breaks the other's lease, rolls back, prunes, checks,
looks at an old generation or a branch.

After each round the share is compared with a model of what was accepted:

    1. a generation's content is that of its parent and the accepted writes of its session; it never changes until it is pruned
    2. the numbers of generations only grow, one at a time, each with the one before as its parent
    3. a session whose right was lost, or whose base is not the newest any more, becomes a branch with exactly its content
    4. what was accepted is in a generation, in a branch, or in the session on its client, unless it was discarded on purpose
    5. the lease on the share has the holder that the model has; nobody else mounts
    6. what a living view or a session whose lease was broken needs is not pruned

Ends with 1 and a message that names the seed on the first violation, else with one line of counts. fast-beats.js beside it shortens
the watch of lease --break.

ISRFS_TWO_MACHINES, when it is set, puts the clients on machines of their own (nfs/campaign.py): {"server": where the share lies on its
server, "a": {"share": where client a has it mounted, "command": what runs a command there}, "b": ...}.
"""
import glob
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

PAGE = 4096
PAGES = 256
PATIENCE_S = 120
LATE_S = 0.5  # what a killed client has sent to its server may still be done there
HERE = os.path.dirname(os.path.realpath(__file__))
seed, rounds, work, cli = int(sys.argv[1]), int(sys.argv[2]), os.path.realpath(sys.argv[3]), os.path.realpath(sys.argv[4])
chance = random.Random(seed)
machines = json.loads(os.environ.get("ISRFS_TWO_MACHINES", "null"))
vm, show = f"{machines['server'] if machines else f'{work}/share'}/vm", f"{work}/show"
environment = {**os.environ, "NODE_OPTIONS": f"--import={HERE}/fast-beats.js"}
counts = Counter()
began = time.monotonic()
story = []  # what was done, for whoever has to find out why


def fail(message):
    for line in story[-40:]:
        print(line, file=sys.stderr)
    subprocess.run(["fusermount3", "-uz", show], capture_output=True)
    sys.exit(f"seed {seed}, step {len(story)}: {message}")


def tell(text):
    story.append(f"{time.monotonic() - began:.1f} s, step {len(story) + 1}: {text}")
    with open(f"{work}/story", "a") as file:
        print(story[-1], file=file)


def start(client_dir, *words, before=()):
    return subprocess.Popen([*before, "node", cli, "--client-dir", client_dir, *words], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, env=environment)


def end(process, *codes):
    """Its exit code, which must be one of `codes`; what it has said is kept in process.said."""
    words = " ".join(process.args[process.args.index(cli) + 1:])
    try:
        process.said = process.communicate(timeout=PATIENCE_S)[0]
    except subprocess.TimeoutExpired:
        fail(f"isrfs {words} has not ended in {PATIENCE_S} s")
    if codes and process.returncode not in codes:
        fail(f"isrfs {words} ended with {process.returncode}, expected {codes}: {process.said}")
    return process.returncode


def wait_until(condition, what):
    limit = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > limit:
            fail(f"waited {PATIENCE_S} s for {what}")
        time.sleep(0.01)


def read_disk(path):
    """The pages of a disk."""
    with open(path, "rb") as disk:
        content = disk.read()
    if len(content) != PAGES * PAGE:
        fail(f"{path} has {len(content)} bytes")
    return [content[at:at + PAGE] for at in range(0, len(content), PAGE)]


def compare(found, expected, what):
    wrong = [index for index in range(PAGES) if found[index] != expected[index]]
    if wrong:
        fail(f"{what}: {len(wrong)} pages are wrong, the first is {wrong[0]}")


class Session:
    """Changes that no generation has yet, as the model has them. Pages are shared with the base's list, so copies are cheap."""

    def __init__(self, base):
        self.base = base
        self.content = list(model.generations[base])
        self.changed = False
        self.broken = False  # its lease was broken: its base has to stay


class Model:
    def __init__(self, content):
        self.generations = {1: content}  # number -> pages, pruned ones too
        self.branches = {}  # name -> pages, pruned ones too
        self.digests = {}  # number or name -> digest
        self.pruned = set()
        self.holder = None

    @property
    def newest(self):
        return max(self.generations)

    def content(self, name):
        return self.generations[name] if name in self.generations else self.branches[name]

    def living(self):
        return [name for name in (*self.generations, *self.branches) if name not in self.pruned]


class Client:
    def __init__(self, name):
        self.name = name
        self.directory = f"{work}/{name}"
        self.mountpoint = f"{work}/mnt-{name}"
        self.view_mountpoint = f"{work}/view-{name}"
        self.state = "down"  # down, up, stopped, suspending (a stopped daemon in the middle of an unmount)
        self.session = None
        self.ghost = False  # the session is published, and may not have been removed
        self.view = None  # the generation that is shown read-only
        self.unmounting = None
        self.id = None
        self.vm = f"{machines[name]['share']}/vm" if machines else vm
        self.command = machines[name]["command"] if machines else ()
        for directory in (self.mountpoint, self.view_mountpoint):
            os.makedirs(directory, exist_ok=True)

    def start(self, *words):
        return start(self.directory, *(self.vm if word == vm else word for word in words), before=self.command)

    def run(self, *words, codes=(0,)):
        process = self.start(*words)
        end(process, *codes)
        return process

    def daemons(self, mountpoint=None):
        found = []
        for path in glob.glob("/proc/[0-9]*/cmdline"):
            try:
                line = open(path, "rb").read()
            except OSError:
                continue
            if b"daemon" in line and (mountpoint or self.mountpoint).encode() in line:
                found.append(int(path.split("/")[2]))
        return found

    def signal(self, number):
        for pid in self.daemons():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def kill(self):
        wait_until(lambda: self.signal(signal.SIGKILL) or not self.daemons(), "a killed daemon to end")
        if machines:
            time.sleep(LATE_S)

    def let_go(self):
        """Leaves nothing behind that waits for a stopped process."""
        for mountpoint in (self.mountpoint, self.view_mountpoint):
            for pid in self.daemons(mountpoint):
                os.kill(pid, signal.SIGKILL)
            subprocess.run(["fusermount3", "-uz", mountpoint], capture_output=True)

    def know_id(self):
        if self.id is None and os.path.exists(f"{self.directory}/client.json"):
            self.id = json.load(open(f"{self.directory}/client.json"))["id"]
        return self.id

    @property
    def other(self):
        return clients[1 - clients.index(self)]

    def loses(self):
        """Whether its session may not make the next generation."""
        return self.session.broken or self.session.base != model.newest

    def conflicts(self):
        """Whether its session cannot be gone on with."""
        return self.session is not None and self.session.changed and self.session.base != model.newest


# --- the share, compared with the model after each step


def lease_holder():
    """The client that the lease on the share names, or None."""
    # the first lease makes the directory: the first start may have been killed before it
    newest = max(os.listdir(f"{vm}/leases"), default=None) if os.path.exists(f"{vm}/leases") else None
    if newest is None or os.path.exists(f"{vm}/leases/{newest}/released.json"):
        return None
    held_by = json.load(open(f"{vm}/leases/{newest}/lease.json"))["holder"]["client"]
    for client in clients:
        if client.know_id() == held_by:
            return client
    fail(f"lease {newest} is held by an unknown client")


def read_history():
    """Number or name of a branch -> its manifest and digest, or that it was pruned. Read here: quicker, and not by what is tested."""
    entries = {}
    for directory in os.listdir(f"{vm}/generations"):
        number, _, session = directory.partition("-")
        name = f"{int(number)}-{session}" if session else int(number)
        path = f"{vm}/generations/{directory}"
        if os.path.exists(f"{path}/tombstone.json"):
            entries[name] = {"pruned": True}
            continue
        with open(f"{path}/manifest.json", "rb") as manifest, open(f"{path}/manifest.sha256") as digest:
            content = manifest.read()
            entries[name] = {**json.loads(content), "digest": hashlib.sha256(content).hexdigest()}
            if digest.read().split()[0] != entries[name]["digest"]:
                fail(f"{name} does not have its digest")
    return entries


def look(may_publish=(), contents=None, may_prune=(), holders=None):
    """
    Compares the share with the model. What clients in `may_publish` (or suspended ones) have newly published is added to the model and
    returned as {client: name}; `contents` overrides what it has to contain. `holders`: who may hold the lease, if more than one may.
    """
    entries = read_history()
    known = {*model.generations, *model.branches}
    missing = known - set(entries)
    if missing:
        fail(f"{missing} are not in the history any more")
    adopted = {}
    may_publish = [*may_publish, *(client for client in clients if client.state == "suspending")]
    for name in sorted(set(entries) - known, key=str):
        entry = entries[name]
        makers = [client for client in may_publish if client.know_id() == entry["client"]["id"] and client not in adopted]
        if not makers:
            fail(f"{name} was published by nobody who should: {entry}")
        client = makers[0]
        content = (contents or {}).get(client) or client.session.content
        if name in range(10 ** 8):
            parent = {"generation": model.newest, "digest": model.digests[model.newest]}
            if name != model.newest + 1 or entry["parent"] != parent:
                fail(f"generation {name} with parent {entry['parent']} follows {parent}")
            model.generations[name] = content
        else:
            model.branches[name] = content
        model.digests[name] = entry["digest"]
        adopted[client] = name
        counts["branches" if isinstance(name, str) else "generations"] += 1
        tell(f"   {client.name} has published {name}")
        check_export(name)
    for name in known:
        entry = entries[name]
        if "pruned" in entry:
            if name not in model.pruned and name not in may_prune:
                fail(f"{name} was pruned, and should not have been")
            model.pruned.add(name)
        elif name in model.pruned:
            fail(f"{name} was pruned and is back")
        elif model.digests.setdefault(name, entry["digest"]) != entry["digest"]:
            fail(f"{name} has changed")
    for client in adopted:
        if client not in (contents or {}):
            client.session, client.ghost = None, True
    holder = lease_holder()
    suspending = [client for client in clients if client.state == "suspending"]
    allowed = {model.holder, *(holders or ())}
    if model.holder in suspending:
        allowed.add(None)
    if holder not in allowed:
        fail(f"the lease is held by {holder and holder.name}, expected {[each and each.name for each in allowed]}")
    model.holder = holder
    return adopted


def check_export(name):
    """What the share alone has, seen by a client that has nothing. A branch can only be mounted."""
    for directory in ("out", "empty"):
        shutil.rmtree(f"{work}/{directory}", ignore_errors=True)
    if isinstance(name, str):
        os.makedirs(show, exist_ok=True)
        end(start(f"{work}/empty", "mount", vm, show, "--generation", name), 0)
        compare(read_disk(f"{show}/disk"), model.content(name), f"branch {name}")
        end(start(f"{work}/empty", "unmount", show), 0)
    else:
        end(start(f"{work}/empty", "export", vm, f"{work}/out", "--generation", str(name)), 0)
        compare(read_disk(f"{work}/out/disk"), model.content(name), f"export of {name}")
    counts["exports"] += 1


# --- what a client does; each returns nothing and leaves the model as the share has to be


def mount(client):
    """Also checks that nobody mounts who may not."""
    taken, conflict = model.holder is client.other, client.conflicts()
    process = client.start("mount", vm, client.mountpoint)
    code = end(process, 3 if taken else 5 if conflict else 0)
    tell(f"{client.name} mounts: {code}")
    mounted(client, code)
    look()


def mounted(client, code):
    """What is true after a mount that has ended with `code`."""
    if code == 3:
        counts["refused"] += 1
        return
    if code == 5:
        counts["conflicts"] += 1
        model.holder = None  # taken, and given back
        return
    counts["mounts"] += 1
    model.holder = client
    client.state, client.ghost = "up", False
    if client.session is None or client.session.base != model.newest:
        client.session = Session(model.newest)
    client.session.broken = False  # it goes on under a new lease
    compare(read_disk(f"{client.mountpoint}/disk"), client.session.content, f"{client.name}'s mount")


def write(client):
    session = client.session
    descriptor = os.open(f"{client.mountpoint}/disk", os.O_RDWR | os.O_SYNC)
    try:
        for _ in range(chance.randint(1, 12)):
            at = chance.randrange(PAGES * PAGE - 8 * PAGE)
            written = chance.randbytes(chance.randint(1, 8 * PAGE))
            if os.pwrite(descriptor, written, at) != len(written):
                fail("a short write")
            session.changed = True
            done = 0
            while done < len(written):
                index, within = divmod(at + done, PAGE)
                piece = written[done:done + PAGE - within]
                page = session.content[index]
                session.content[index] = page[:within] + piece + page[within + len(piece):]
                done += len(piece)
    finally:
        os.close(descriptor)
    counts["writes"] += 1
    tell(f"{client.name} writes")
    if chance.random() < 0.2:
        compare(read_disk(f"{client.mountpoint}/disk"), session.content, f"{client.name}'s mount after writing")


def unmount(client):
    process = client.start("unmount", client.mountpoint)
    end(process)
    unmounted(client, process)


def unmounted(client, process):
    """What is true after a complete unmount."""
    tell(f"{client.name} unmounts: {process.returncode}")
    session = client.session  # None when look() has already seen what it has published
    expected = None if session is None else 0 if not session.changed else 5 if client.loses() else 0
    adopted = look(may_publish=[client] if session is not None else [], holders=[None] if model.holder is client else [])
    if expected is not None and process.returncode != expected:
        fail(f"unmount ended with {process.returncode}, expected {expected}: {process.said}")
    if session is not None and session.changed:
        name = adopted.get(client)
        if name is None or isinstance(name, str) != (expected == 5) or str(name) not in process.said:
            fail(f"unmount has published {name}, and says: {process.said}")
    if model.holder is client:
        fail("the lease was not given back")
    client.state, client.session, client.ghost = "down", None, False
    wait_until(lambda: not client.daemons(), "the daemon to end")
    counts["suspends"] += 1


def kill(client):
    client.kill()
    tell(f"{client.name} is killed ({client.state})")
    if client.unmounting is not None:
        killed_in_unmount(client)
        return
    client.state = "down"
    counts["kills"] += 1
    look()


def kill_in_unmount(client):
    client.unmounting = client.start("unmount", client.mountpoint)
    time.sleep(0.08 + chance.random() * 0.6)
    client.kill()
    killed_in_unmount(client)


def killed_in_unmount(client):
    process, client.unmounting = client.unmounting, None
    end(process)
    client.state = "down"
    lost = client.session is not None and client.session.changed and client.loses()
    unchanged = client.session is not None and not client.session.changed
    adopted = look(may_publish=[client] if client.session is not None else [], holders=[None] if model.holder is client else [])
    name = adopted.get(client)
    if name is not None and isinstance(name, str) != lost:
        fail(f"a killed unmount has published {name}")
    if unchanged:
        client.session, client.ghost = None, True  # a session without changes may be gone or not
    tell(f"{client.name} is killed in its unmount ({process.returncode}), published {name}")
    counts["kills in unmount"] += 1
    if process.returncode == 0 and client.session is not None and client.session.changed:
        fail("unmount returned 0 and has published nothing")


def kill_in_start(client):
    """Killed at a random moment of a mount or a recover: it may have taken the lease, or given it back, or published."""
    session, taken = client.session, model.holder is client.other
    words = chance.choice([["recover", vm], ["mount", vm, client.mountpoint]])
    process = client.start(*words)
    time.sleep(0.08 + chance.random() * 0.9)
    process.kill()
    client.kill()
    end(process)
    client.kill()  # a daemon that was being started just then
    tell(f"{client.name} is killed in its {words[0]} ({process.returncode})")
    counts[f"kills in {words[0]}"] += 1
    lost = session is not None and (taken or session.base != model.newest)
    publishes = words[0] == "recover" and session is not None and session.changed
    name = look(may_publish=[client] if publishes else [], holders=[] if taken else [None, client]).get(client)
    if name is not None and isinstance(name, str) != lost:
        fail(f"a killed recover has published {name}")
    if session is None or not session.changed:
        client.session, client.ghost = None, True  # there may be a session without changes


def stop(client):
    client.signal(signal.SIGSTOP)
    client.state = "stopped"
    tell(f"{client.name} is stopped")
    counts["stops"] += 1


def stop_in_unmount(client):
    """Stopped at a random moment of the suspend: what was checked before need not be true afterwards."""
    client.unmounting = client.start("unmount", client.mountpoint)
    time.sleep(0.08 + chance.random() * 0.6)
    client.signal(signal.SIGSTOP)
    client.state = "suspending"
    tell(f"{client.name} is stopped in its unmount")
    counts["stops in unmount"] += 1
    look()


def go_on(client):
    client.signal(signal.SIGCONT)
    if client.state == "stopped":
        client.state = "up"
        tell(f"{client.name} goes on")
        return
    process, client.unmounting = client.unmounting, None
    end(process)
    client.state = "up"
    unmounted(client, process)


def recover(client):
    session, taken = client.session, model.holder is client.other
    process = client.start("recover", vm)
    end(process)
    recovered(client, process, session, taken)


def recovered(client, process, session, taken):
    tell(f"{client.name} recovers: {process.returncode}")
    if client.state != "down":  # its own daemon has the session
        if process.returncode != 3:
            fail(f"recover beside a mount ended with {process.returncode}: {process.said}")
        look()
        return
    lost = session is not None and (taken or session.base != model.newest)
    expected = {3} if session is None and taken else {0}
    if client.ghost and taken:
        expected = {0, 3}
    if process.returncode not in expected:
        fail(f"recover ended with {process.returncode}, expected {expected}: {process.said}")
    if not taken:
        model.holder = None
    adopted = look(may_publish=[client] if session is not None else [])
    name = adopted.get(client)
    if session is not None and session.changed:
        if name is None or isinstance(name, str) != lost or str(name) not in process.said:
            fail(f"recover has published {name}, and says: {process.said}")
        counts["recoveries"] += 1
    client.session, client.ghost = None, False


def discard(client):
    client.run("recover", vm, "--discard")
    tell(f"{client.name} discards")
    if model.holder is client:
        model.holder = None
    client.session, client.ghost = None, False
    counts["discards"] += 1
    look()


def break_lease(client):
    """Breaks the lease of whoever holds it, whether it lives or not."""
    holder = model.holder
    process = client.start("lease", vm, "--break")
    code = end(process, 0, 3) if holder.state == "up" else end(process, 0)
    tell(f"{client.name} breaks the lease of {holder.name} ({holder.state}): {code}")
    if code == 3:
        counts["breaks refused"] += 1
    elif "broken" in process.said:
        model.holder = None
        counts["breaks"] += 1
        if holder.session is not None:
            holder.session.broken = True
    look()


def race(first, second):
    """Two commands of the two clients at once: at most one gets the lease, and each ends as if one had come first."""
    words = {client: chance.choice(["mount", "mount", "recover"]) for client in (first, second)}
    sessions = {client: client.session for client in (first, second)}
    conflicted = {client: client.conflicts() for client in (first, second)}
    newest = model.newest
    processes = {}
    for client in (first, second):
        processes[client] = client.start(words[client], vm, *([client.mountpoint] if words[client] == "mount" else []))
        time.sleep(chance.random() * 0.3)
    for process in processes.values():
        end(process, 0, 3, 5)
    said = ", ".join(f"{client.name} {words[client]} {processes[client].returncode}" for client in processes)
    tell(f"race: {said}")
    counts["races"] += 1
    recovering = [client for client in processes if words[client] == "recover"]
    up = [client for client in processes if words[client] == "mount" and processes[client].returncode == 0]
    if len(up) > 1:
        fail("both have mounted")
    # whoever mounts or recovers takes the lease; a command that is refused, or meets a conflict, leaves it free
    publishers = [client for client in recovering if sessions[client] is not None]
    adopted = look(may_publish=publishers, holders=[None, first, second])
    if model.holder is not (up[0] if up else None):
        untouched = [client for client in processes if processes[client].returncode == 3]
        if not untouched or up:
            fail(f"after a race the lease is held by {model.holder and model.holder.name}")
    for client in recovering:
        session = sessions[client]
        if processes[client].returncode == 0:
            if session is not None and session.changed and client not in adopted:
                fail(f"recover has published nothing: {processes[client].said}")
            client.session, client.ghost = None, False
            counts["recoveries"] += session is not None and session.changed
        elif session is not None and session.changed and client not in adopted:
            fail(f"recover of a session ended with {processes[client].returncode}: {processes[client].said}")
    for client in processes:
        if words[client] != "mount":
            continue
        code = processes[client].returncode
        if code == 0:
            base = json.loads(client.run("status", client.mountpoint, "--json").said)["generation"]
            if base not in (newest, model.newest):
                fail(f"{client.name} has mounted generation {base}")
            if client.session is None or client.session.base != base:
                if client.session is not None and client.session.changed:
                    fail("a mount went on with a session on another base")
                client.session = Session(base)
            client.state, client.ghost, client.session.broken = "up", False, False
            compare(read_disk(f"{client.mountpoint}/disk"), client.session.content, f"{client.name}'s mount after a race")
            counts["mounts"] += 1
        elif code == 5 and not (conflicted[client] or client.conflicts()):
            fail(f"a mount without a conflict ended with 5: {processes[client].said}")
        else:
            counts["refused" if code == 3 else "conflicts"] += 1
    model.holder = up[0] if up else model.holder


def rollback(client):
    name = chance.choice(model.living())
    code = end(process := client.start("rollback", vm, str(name)), 0 if model.holder is None else 3)
    tell(f"{client.name} rolls back to {name}: {code}")
    content = model.content(name)
    adopted = look(may_publish=[client], contents={client: content}) if code == 0 else look()
    if code == 0 and (client in adopted) == ("newest one already" in process.said):
        fail(f"rollback has published {adopted.get(client)}, and says: {process.said}")
    counts["rollbacks"] += code == 0


def prune(client):
    keep = chance.randint(2, 5)
    named = chance.choice([*model.branches, None]) if chance.random() < 0.3 else None
    branch = ["--branch", named] if named is not None else []
    process = client.start("prune", vm, "--keep", str(keep), "--grace", "0s", "--yes", *branch)
    code = end(process, 0 if model.holder is None else 3)
    tell(f"{client.name} prunes, keeping {keep} and not {named}: {code}")
    generations = sorted(name for name in model.living() if name in model.generations)
    old = {*generations[:-keep], *([named] if named else [])}
    needed = {each.session.base for each in clients if each.session is not None} | {each.view for each in clients}
    look(may_prune=old - needed if code == 0 else ())
    if code == 0:
        counts["prunes"] += 1


def check(client):
    client.run("check", vm, "--read-data")
    tell(f"{client.name} checks")
    if chance.random() < 0.5:
        check_export(chance.choice(model.living()))


def open_view(client):
    name = chance.choice(model.living())
    client.run("mount", vm, client.view_mountpoint, "--generation", str(name))
    client.view = name
    tell(f"{client.name} looks at {name}")
    counts["views"] += 1
    look()


def close_view(client):
    """What is read only now was not in this client's cache necessarily: a prune must have left it alone."""
    compare(read_disk(f"{client.view_mountpoint}/disk"), model.content(client.view), f"view of {client.view}")
    client.run("unmount", client.view_mountpoint)
    tell(f"{client.name} has looked at {client.view}")
    client.view = None
    wait_until(lambda: not client.daemons(client.view_mountpoint), "the view's daemon to end")
    look()


def choices(client):
    """What the client can do now, and how often it should."""
    free = model.holder is None
    found = [(check, 1), (rollback, 2 if free else 0.2), (prune, 3 if free else 0.2), (close_view if client.view else open_view, 1)]
    if client.state == "down":
        found += [(mount, 1 if model.holder is client.other else 10), (recover, 4 if client.session else 1), (discard, 0.5 if client.session else 0.1)]
        found.append((kill_in_start, 3))
        if client.other.state == "down" and model.holder is None:
            found.append((lambda each: race(each, each.other), 4))
    if client.state == "up":
        changed = client.session.changed
        found += [(write, 8 if not changed else 4), (unmount, 3 if changed else 1), (kill, 2), (stop, 2), (recover, 0.3)]
        found += [(kill_in_unmount, 2), (stop_in_unmount, 3)] if changed else []
    if client.state in ("stopped", "suspending"):
        found += [(go_on, 3), (kill, 1)]
    if model.holder is client.other:
        found.append((break_lease, {"up": 0.3, "down": 5}.get(client.other.state, 9)))
    if model.holder is client and client.state == "down":
        found.append((break_lease, 0.3))
    return found


def settle_everything():
    """Every session ends somewhere, and all of it is compared once more."""
    for client in clients:
        if client.state in ("stopped", "suspending"):
            go_on(client)
        if client.state == "up":
            unmount(client)
    for client in clients:
        if client.view:
            close_view(client)
        if model.holder is client.other:
            break_lease(client)
        recover(client)
    check(clients[0])
    for name in model.living():
        check_export(name)


clients = []
for name in ("src", "share"):
    os.makedirs(f"{work}/{name}", exist_ok=True)
first_content = chance.randbytes(PAGES * PAGE)
with open(f"{work}/src/disk", "wb") as disk:
    disk.write(first_content)
model = Model(read_disk(f"{work}/src/disk"))
clients += [Client("a"), Client("b")]
end(start(f"{work}/looker", "import", f"{work}/src", vm), 0)
model.digests[1] = read_history()[1]["digest"]
try:
    for _ in range(rounds):
        client = chance.choice(clients)
        actions, weights = zip(*choices(client))
        chance.choices(actions, weights)[0](client)
    settle_everything()
finally:
    for client in clients:
        client.let_go()
summary = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
took = time.monotonic() - began
print(f"seed {seed}: {rounds} rounds ({summary}), {took / max(1, rounds):.1f} s each, 0 violations")
