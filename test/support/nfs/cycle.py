"""cycle.py VERSION: the main job of two clients over this version of NFS; the second is refused while the first has the lease."""
import os
import sys
from bed import Client, digests, facts, make_source, report, scatter_writes, write

SIZE = 3_000_001
version = sys.argv[1]
a, b = Client("a", version), Client("b", version)
source = make_source({"disk": SIZE, "nvram": 8684})

a.must("import", source, a.vm)
a.mount()
facts["refused"] = b.isrfs("mount", b.vm, b.mountpoint)
facts["asImported"] = digests(a.mountpoint) == digests(source)
scatter_writes(a.mountpoint, "disk", SIZE, 20)
write(a.path("new"), b"a file of client a")
os.rename(a.path("nvram"), a.path("nvram~"))
wanted = digests(a.mountpoint)
facts["unmounted"] = a.isrfs("unmount", a.mountpoint)

b.mount()
facts["onTheOther"] = digests(b.mountpoint) == wanted
scatter_writes(b.mountpoint, "disk", SIZE + 500_000, 20)
os.unlink(b.path("new"))
wanted = digests(b.mountpoint)
facts["unmountedAgain"] = b.isrfs("unmount", b.mountpoint)

facts["exported"] = a.exported() == wanted
report()
