"""The daemon dies of SIGKILL in the middle of writes. The next mount goes on; a client that has never seen the VM gets it all."""
import os
import signal
import threading
from bed import MIB, Client, chance, digest, facts, make_source, report, say

PAGE = 4096
SIZE = 2 * MIB
a, b = Client("a"), Client("b")
source = make_source({"disk": SIZE})
a.must("import", source, a.vm)
a.mount()
pid = a.status()["pid"]

# every write is accepted when it returns; the one that the kill interrupts may be old or new
with open(f"{source}/disk", "rb") as file:
    accepted = bytearray(file.read())
interrupted = None
written = 0
descriptor = os.open(a.path("disk"), os.O_RDWR | os.O_SYNC)
threading.Timer(3, lambda: os.kill(pid, signal.SIGKILL)).start()
try:
    while True:
        start = chance.randrange(SIZE // PAGE) * PAGE
        page = chance.randbytes(PAGE)
        interrupted = (start, page)
        os.pwrite(descriptor, page, start)
        accepted[start:start + PAGE] = page
        interrupted = None
        written += 1
except OSError as error:
    say(f"{written} writes were accepted, then {error}")
facts["accepted"] = written
try:
    os.close(descriptor)
except OSError:
    pass

facts["mountedAgain"] = a.isrfs("mount", a.vm, a.mountpoint)
with open(a.path("disk"), "rb") as file:
    content = file.read()
start, page = interrupted
if content[start:start + PAGE] == page:
    accepted[start:start + PAGE] = page
facts["acceptedIsThere"] = content == accepted
wanted = {"disk": digest(a.path("disk"))}
facts["unmounted"] = a.isrfs("unmount", a.mountpoint)
facts["published"] = b.exported() == wanted
report()
