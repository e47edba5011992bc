"""A slow and lossy network: 20 ms each way, one packet in fifty lost."""
import re
from bed import Client, digests, facts, make_source, report, run, scatter_writes

SIZE = 1_500_000
a, b = Client("a"), Client("b")
for client in (a, b):
    netem = ("qdisc", "add", "dev", "eth0", "root", "netem", "delay", "20ms", "loss", "2%")
    run(*client.here("tc", *netem))
    run("tc", *[f"to-{client.name}" if word == "eth0" else word for word in netem])
a.must("import", make_source({"disk": SIZE}), a.vm)
a.mount()
scatter_writes(a.mountpoint, "disk", SIZE, 10)
wanted = digests(a.mountpoint)
facts["unmounted"] = a.isrfs("unmount", a.mountpoint)
facts["published"] = b.exported() == wanted
# that the network was as bad as that
facts["lostPackets"] = int(re.search(r"dropped (\d+)", run(*a.here("tc", "-s", "qdisc", "show", "dev", "eth0")))[1])
for client in (a, b):
    run(*client.here("tc", "qdisc", "del", "dev", "eth0", "root"))
    run("tc", "qdisc", "del", "dev", f"to-{client.name}", "root")
report()
