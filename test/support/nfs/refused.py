"""The server refuses what an unmount wants to publish: read-only, full, not exported. Afterwards `isrfs recover` publishes it."""
import os
from bed import EXPORT, MIB, Client, chance, digests, facts, make_source, report, run, say, wait_for, write

a, b = Client("a"), Client("b")
a.must("import", make_source({"disk": 2 * MIB}), a.vm)


def remount(how):
    """The server's own open files keep it from being read-only for a moment."""
    wait_for(lambda: os.system(f"mount -o remount,{how} {EXPORT} 2>/dev/null") == 0, f"the export to be {how}")
    say(f"the export is {how}")


def fill():
    """Room for more than half of what will be sent, so that it is only noticed on the way; none of it for anything else."""
    with open(f"{EXPORT}/ballast", "wb") as ballast:
        free = os.statvfs(EXPORT).f_bavail * os.statvfs(EXPORT).f_bsize
        ballast.write(bytes(free - 1_700_000))
    say(f"{os.statvfs(EXPORT).f_bavail * os.statvfs(EXPORT).f_bsize} bytes are free")


faults = {
    "readOnly": (lambda: remount("ro"), lambda: remount("rw")),
    "full": (fill, lambda: os.unlink(f"{EXPORT}/ballast")),
    "unexported": (lambda: run("exportfs", "-ua"), lambda: run("exportfs", "-ra")),
}
for fault, (begin, end) in faults.items():
    a.mount()
    write(a.path("disk"), fault.encode())
    write(a.path(fault), chance.randbytes(2 * MIB))
    wanted = digests(a.mountpoint)
    begin()
    unmounted = a.isrfs("unmount", a.mountpoint)
    end()
    recovered = a.isrfs("recover", a.vm)
    facts[fault] = {"unmounted": unmounted, "recovered": recovered}
facts["published"] = b.exported() == wanted
report()
