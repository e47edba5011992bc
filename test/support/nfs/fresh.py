"""
What a client sees of another's work when it has looked just before, with the attribute caching of a default mount: the end of
a lease, beats, tombstones. And a race for the lease, by mounts and by processes that do nothing else.
"""
import json
import os
import subprocess
from bed import NODE, Client, facts, generations, make_source, report, say, write

TAKE_LEASE = os.environ["ISRFS_TAKE_LEASE"]
a, b = Client("a"), Client("b")
a.must("import", make_source({"disk": 100_000}), a.vm)

# two mounts at the same moment
both = [client.start("mount", client.vm, client.mountpoint) for client in (a, b)]
facts["mounts"] = [client.end(process) for client, process in zip((a, b), both)]
winner, loser = (a, b) if facts["mounts"][0]["code"] == 0 else (b, a)
write(winner.path("disk"), b"by the winner")

# the loser has looked before the holder's latest beats, and must see them
facts["broken"] = loser.isrfs("lease", loser.vm, "--break")

# it has seen the lease held and one generation, and resumes at once what is published now
facts["generationsBefore"] = generations(loser)
winner.must("unmount", winner.mountpoint)
facts["resumed"] = loser.isrfs("mount", loser.vm, loser.mountpoint)
write(loser.path("disk"), b"by the loser")
facts["unmounted"] = loser.isrfs("unmount", loser.mountpoint)

# it has read a generation that is pruned now
winner.must("prune", winner.vm, "--keep", "1", "--yes")
facts["generationsLeft"] = generations(loser)
facts["pruned"] = loser.isrfs("export", loser.vm, f"{loser.directory}/exported", "--generation", "1")

# the lease alone, each time given back behind their backs
facts["leases"] = []
for _ in range(3):
    both = [
        subprocess.Popen(client.here(NODE, TAKE_LEASE, client.vm, client.name), stdout=subprocess.PIPE, text=True)
        for client in (a, b)
    ]
    facts["leases"].append(sorted(process.communicate()[0].strip() for process in both))
    say(str(facts["leases"][-1]))
    newest = sorted(os.listdir(a.on_server("leases")))[-1]
    released = {"time": "2026-01-01T00:00:00Z", "by": "holder", "who": "", "generation": None}
    write(a.on_server(f"leases/{newest}/released.json"), json.dumps(released).encode())
report()
