"""The server stops and comes back in the middle of a fetch, of the beats of a lease, and of a commit."""
import json
import os
import subprocess
from bed import (MIB, Client, digest, facts, forget_cached_pages, make_source, report, run, say, start_server,
                 stop_server, wait_for, write, chance)

a, b = Client("a"), Client("b")
source = make_source({"present": MIB, "absent": MIB, "disk": 4 * MIB})
a.must("import", source, a.vm)
a.mount()
digest(a.path("present"))


def beats():
    (lease,) = os.listdir(a.on_server("leases"))
    try:
        with open(a.on_server(f"leases/{lease}/beat.json")) as beat:
            return json.load(beat)["count"]
    except FileNotFoundError:
        return 0


def share_answers(wanted):
    def look():
        status = a.status()
        return status if status["shareAnswers"] == wanted and (wanted or status["waiting"]) else None
    return wait_for(look, f"shareAnswers to be {wanted}", pause=1.5)


# a fetch, and the lease meanwhile
wait_for(lambda: beats() > 0, "the first beat")
forget_cached_pages()
stop_server()
reader = subprocess.Popen(["sha256sum", a.path("absent")], stdout=subprocess.PIPE, text=True)
facts["whileAway"] = share_answers(False)
facts["statusText"] = a.isrfs("status", a.mountpoint)
facts["presentReads"] = digest(a.path("present")) == digest(f"{source}/present")
facts["readerWaits"] = reader.poll() is None
write(a.path("present"), b"accepted while the server is away", 4096)
before = beats()
start_server()
facts["absentReads"] = reader.communicate()[0].split()[0] == digest(f"{source}/absent")
facts["afterwards"] = share_answers(True)
wait_for(lambda: beats() > before, "the lease to be renewed")
facts["refused"] = b.isrfs("mount", b.vm, b.mountpoint)

# a commit: the server stops when the first chunk is on its way
write(a.path("disk"), chance.randbytes(3 * MIB))
wanted = {name: digest(a.path(name)) for name in ("present", "absent", "disk")}
run(*a.here("tc", "qdisc", "add", "dev", "eth0", "root", "netem", "rate", "8mbit"))


def size_of(file):
    try:
        return os.path.getsize(file)
    except FileNotFoundError:  # it has its name by now
        return 0


def uploading():
    names = os.listdir(a.on_server("tmp"))
    return any(size_of(a.on_server(f"tmp/{name}")) > 100_000 for name in names)


unmounting = a.start("unmount", a.mountpoint)
facts["generationsBefore"] = os.listdir(a.on_server("generations"))
wait_for(uploading, "the upload to begin")
stop_server()
say("the upload had begun")
facts["whileCommitting"] = wait_for(lambda: (found := a.status()) and not found["shareAnswers"] and found, "the outage to be seen", pause=1.5)
facts["generationsMeanwhile"] = os.listdir(a.on_server("generations"))
facts["commitWaits"] = unmounting.poll() is None
start_server()
run(*a.here("tc", "qdisc", "del", "dev", "eth0", "root"))
facts["unmounted"] = a.end(unmounting)
facts["published"] = b.exported() == wanted
report()
