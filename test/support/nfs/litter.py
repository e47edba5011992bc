"""
Files that somebody has open while they are removed stay as .nfsXXXX in their directory until they are closed: one in every
directory of a VM, and those that isrfs itself leaves when it replaces or removes a file that another process has open.
"""
import glob
import os
from bed import MIB, Client, chance, digests, facts, generations, make_source, report, wait_for, write

a = Client("a")
a.must("import", make_source({"disk": 2 * MIB}), a.vm)
a.must("import", "--update", make_source({"disk": 2 * MIB}), a.vm)
a.mount()
write(a.path("disk"), chance.randbytes(MIB))
wanted = digests(a.mountpoint)


def litter():
    return len(glob.glob(f"{a.vm}/**/.nfs*", recursive=True))


os.makedirs(f"{a.vm}/pins", exist_ok=True)
held = []
for directory, _, names in os.walk(a.vm):
    for name in names:
        try:
            held.append(os.open(f"{directory}/{name}", os.O_RDONLY))
        except FileNotFoundError:  # the mount writes its lease and profile meanwhile
            pass
    held.append(os.open(f"{directory}/litter", os.O_RDWR | os.O_CREAT))
    os.write(held[-1], b"litter")
    os.unlink(f"{directory}/litter")
facts["littered"] = litter()

facts["unmounted"] = a.isrfs("unmount", a.mountpoint)
facts["generations"] = generations(a)
facts["check"] = a.isrfs("check", a.vm)
facts["pruned"] = [a.isrfs("prune", a.vm, "--keep", "1", "--grace", "0s", "--yes") for _ in range(2)]
facts["litteredMore"] = litter()
facts["generationsLeft"] = generations(a)
facts["published"] = a.exported() == wanted
for descriptor in held:
    os.close(descriptor)
wait_for(lambda: litter() == 0, "the clients to remove what nobody has open any more")  # close does not wait for the server
facts["checkAtLast"] = a.isrfs("check", a.vm, "--read-data")
report()
