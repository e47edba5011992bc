"""
What the scenarios in this folder share: the clients a and b, the server's faults, and comparisons. A scenario runs inside the
guest (see `guest` and `machines`), says on stderr what it does, and prints what it has seen as one JSON object; whether that
is right is decided in test/end-to-end/nfs.test.ts. Only what keeps a scenario from going on ends it early.
"""
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time

NODE, CLI = os.environ["ISRFS_NODE"], os.environ["ISRFS_CLI"]
EXPORT = "/srv/export"
MIB = 1 << 20
SERVER = {"a": "10.0.1.1", "b": "10.0.2.1"}
seed = int(os.environ["ISRFS_TEST_SEED"])
chance = random.Random(seed)
started = time.monotonic()
facts = {}


def say(text):
    print(f"{time.monotonic() - started:6.1f} s  {text}", file=sys.stderr, flush=True)


def report():
    print(json.dumps(facts))


def run(*words):
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def wait_for(condition, what, pause=0.1, limit=100):
    end = time.monotonic() + limit
    while not (value := condition()):
        if time.monotonic() > end:
            sys.exit(f"waited too long for {what}")
        time.sleep(pause)
    return value


def json_in(text):
    """The object that a command has printed, among notices for people."""
    return json.loads(next(line for line in text.splitlines() if line.startswith(("{", "["))))


class Client:
    """One client machine with the export mounted, and one VM on it."""

    def __init__(self, name, version="4.2"):
        self.name = name
        self.directory = f"/scratch/{name}"
        self.share = f"{self.directory}/share-{version}"
        scenario = os.path.basename(sys.argv[0]).removesuffix(".py")
        self.vm = f"{self.share}/{scenario}"
        self.client_directory = f"{self.directory}/client-{scenario}-{version}"
        self.mountpoint = f"{self.directory}/mnt"
        os.makedirs(self.share, exist_ok=True)
        os.makedirs(self.mountpoint, exist_ok=True)
        if not os.path.ismount(self.share):
            path, options = "/", f"vers={version},retry=0,nosharecache"
            if version == "3":  # isrfs needs no locks; with explicit ports nobody has to ask rpcbind
                path, options = EXPORT, f"{options},nolock,proto=tcp,mountproto=tcp,port=2049,mountport=20048"
            run(*self.here("mount", "-t", "nfs", "-o", options, f"{SERVER[name]}:{path}", self.share))

    def here(self, *words):
        """The command line that runs these words on this client."""
        return ("nsenter", f"--net=/run/netns/{self.name}", f"--uts=/run/utsns/{self.name}", *words)

    def start(self, *words):
        say(f"{self.name}: isrfs {' '.join(words)} ...")
        command = self.here(NODE, CLI, "--client-dir", self.client_directory, *words)
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def end(self, process):
        text = process.communicate()[0]
        say(f"{self.name}: ... ended with {process.returncode}: {text.strip()[:2000]}")
        return {"code": process.returncode, "text": text}

    def isrfs(self, *words):
        return self.end(self.start(*words))

    def must(self, *words):
        done = self.isrfs(*words)
        if done["code"]:
            sys.exit(f"isrfs {' '.join(words)} on {self.name} ended with {done['code']}: {done['text']}")
        return done["text"]

    def mount(self, *options):
        self.must("mount", self.vm, self.mountpoint, *options)

    def status(self):
        return json_in(self.must("status", self.mountpoint, "--json"))

    def path(self, name):
        return f"{self.mountpoint}/{name}"

    def exported(self):
        """Digests of the newest generation's files, as `isrfs export` writes them."""
        target = f"{self.directory}/exported"
        self.must("export", self.vm, target)
        found = digests(target)
        shutil.rmtree(target)
        return found

    def on_server(self, name=""):
        """Where something of the VM lies on the server itself."""
        return f"{EXPORT}/{os.path.basename(self.vm)}/{name}"


def stop_server():
    say("the server stops")
    run("rpc.nfsd", "0")


def start_server():
    run("rpc.nfsd", "4")
    with open("/proc/fs/nfsd/v4_end_grace", "w") as grace:
        grace.write("Y")
    say("the server is back")


def forget_cached_pages():
    """Of all clients, so that the next read asks the daemon, and the daemon the server."""
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as drop:
        drop.write("3")


def make_source(sizes):
    """A directory with files of random bytes."""
    directory = "/scratch/source"
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    for name, size in sizes.items():
        with open(f"{directory}/{name}", "wb") as file:
            file.write(chance.randbytes(size))
    return directory


def write(file, content, offset=0):
    """Written and synced: accepted."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT)
    os.pwrite(descriptor, content, offset)
    os.fsync(descriptor)
    os.close(descriptor)


def scatter_writes(directory, name, size, count):
    """Random writes of 1 B to 64 KiB within the file, synced at the end."""
    descriptor = os.open(f"{directory}/{name}", os.O_RDWR)
    for _ in range(count):
        os.pwrite(descriptor, chance.randbytes(1 + int(2 ** chance.uniform(0, 16))), chance.randrange(size))
    os.fsync(descriptor)
    os.close(descriptor)


def digest(file):
    with open(file, "rb") as content:
        return hashlib.sha256(content.read()).hexdigest()


def digests(directory):
    return {
        os.path.relpath(f"{parent}/{name}", directory): digest(f"{parent}/{name}")
        for parent, _, names in os.walk(directory)
        for name in names
    }


def generations(client):
    """As `isrfs log` shows them, newest first; a pruned or damaged one with that word."""
    entries = json_in(client.must("log", client.vm, "--json"))
    return [" ".join([str(entry["generation"]), *({"pruned", "damage"} & entry.keys())]) for entry in entries]
