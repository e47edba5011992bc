"""
campaign.py PROGRAM ROUNDS: kill-campaign.py or two-clients.py of the folder above, whole, with their share on the server, which
stops, comes back and is slow meanwhile, again and again.
"""
import json
import os
import random
import subprocess
import sys
import threading
from bed import CLI, EXPORT, NODE, Client, facts, report, run, say, seed, start_server, stop_server

# over NFSv4 a server that comes back without its clients' opens makes their writes fail, which is exit 5 and not what is tried here
VERSION = "3"
WORK = "/scratch/campaign"
program, rounds = sys.argv[1], sys.argv[2]
a, b = Client("a", VERSION), Client("b", VERSION)
chance = random.Random(seed)
over = threading.Event()
outages = {"stopped": 0, "slow": 0}

run("mount", "-o", "remount,size=400m", EXPORT)
os.makedirs(WORK)
os.symlink(a.share, f"{WORK}/share")
environment = {**os.environ, "PATH": f"{os.path.dirname(NODE)}:{os.environ['PATH']}"}
if program == "two-clients.py":
    machines = {each.name: {"share": each.share, "command": each.here()} for each in (a, b)}
    environment["ISRFS_TWO_MACHINES"] = json.dumps({"server": EXPORT, **machines})


def slow(client, how):
    words = ("qdisc", how, "dev", "eth0", "root", *(("netem", "delay", "60ms", "loss", "1%") if how == "add" else ()))
    run(*client.here("tc", *words))


def trouble():
    while not over.wait(chance.uniform(4, 15)):
        if chance.random() < 0.6:
            stop_server()
            over.wait(chance.uniform(0.2, 5))
            start_server()
            outages["stopped"] += 1
        else:
            client = chance.choice((a, b))
            slow(client, "add")
            over.wait(chance.uniform(1, 6))
            slow(client, "del")
            outages["slow"] += 1


making_trouble = threading.Thread(target=trouble)
making_trouble.start()
command = ("python3", os.path.realpath(f"{os.path.dirname(os.path.realpath(__file__))}/../{program}"), str(seed), rounds, WORK, CLI)
done = subprocess.run(a.here(*command) if program == "kill-campaign.py" else command, env=environment, stdout=subprocess.PIPE, stderr=sys.stderr, text=True)
over.set()
making_trouble.join()
say(done.stdout)
facts.update(code=done.returncode, said=done.stdout.strip(), outages=outages)
report()
