"""
kill-campaign.py SEED ROUNDS DIRECTORY CLI: mounts a VM, writes to its disk through the mount, kills the daemon with SIGKILL in
the middle of it, mounts again and compares, again and again; every fourth round ends with a suspend instead. What a
write with O_SYNC or an fsync has accepted must be there; other pages are old or new, never anything else. At last the newest
generation is exported with an empty client directory and compared once more. Ends with 1 and a message on the first violation.
"""
import json
import os
import random
import subprocess
import sys
import threading
import time

PAGE = 4096
SIZE = 8 << 20
PAGES = SIZE // PAGE
seed, rounds, work, cli = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
chance = random.Random(seed)
for name in ("src", "mnt", "share"):
    os.makedirs(f"{work}/{name}", exist_ok=True)


def isrfs(*words, client="client"):
    done = subprocess.run(["node", cli, "--client-dir", f"{work}/{client}", *words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"isrfs {' '.join(words)} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def page_of(content, index):
    return bytes(content[index * PAGE:(index + 1) * PAGE])


def check(content, allowed, when):
    for index in range(PAGES):
        if page_of(content, index) not in allowed[index]:
            sys.exit(f"seed {seed}, {when}: page {index} is neither old nor new")


content = bytearray(chance.randbytes(SIZE))
open(f"{work}/src/disk", "wb").write(content)
isrfs("import", f"{work}/src", f"{work}/share/vm")
allowed = [{page_of(content, index)} for index in range(PAGES)]

for number in range(rounds):
    isrfs("mount", f"{work}/share/vm", f"{work}/mnt")
    pid = json.loads(isrfs("status", f"{work}/mnt", "--json"))["pid"]
    content = bytearray(open(f"{work}/mnt/disk", "rb").read())
    check(content, allowed, f"round {number}")
    allowed = [{page_of(content, index)} for index in range(PAGES)]
    kill = number % 4 != 3
    ended = threading.Event()

    def end_later():
        time.sleep(chance.random())
        if kill:
            os.kill(pid, 9)
        ended.set()

    thread = threading.Thread(target=end_later)
    thread.start()
    synced = os.open(f"{work}/mnt/disk", os.O_RDWR | os.O_SYNC)
    buffered = os.open(f"{work}/mnt/disk", os.O_RDWR)
    writes = 0
    try:
        while not ended.is_set():
            start = chance.randrange(SIZE - 20 * PAGE)
            length = chance.randint(1, 20 * PAGE)
            if chance.random() < 0.7:  # whole pages
                start -= start % PAGE
                length = max(PAGE, length - length % PAGE)
            written = chance.randbytes(length)
            after = bytearray(content)
            after[start:start + length] = written
            touched = range(start // PAGE, (start + length - 1) // PAGE + 1)
            for index in touched:
                allowed[index].add(page_of(after, index))
            accepted = chance.random() < 0.5
            os.pwrite(synced if accepted else buffered, written, start)
            content = after
            if accepted:
                for index in touched:
                    allowed[index] = {page_of(content, index)}
            if chance.random() < 0.05:
                os.fsync(buffered)
                allowed = [{page_of(content, index)} for index in range(PAGES)]
            writes += 1
    except OSError:
        if not kill:
            raise
    thread.join()
    for descriptor in (synced, buffered):
        try:
            os.close(descriptor)
        except OSError:
            pass
    if not kill:
        isrfs("unmount", f"{work}/mnt")
        allowed = [{page_of(content, index)} for index in range(PAGES)]
    print(f"round {number}: {writes} writes, {'killed' if kill else 'suspended'}", flush=True)

isrfs("mount", f"{work}/share/vm", f"{work}/mnt")
isrfs("unmount", f"{work}/mnt")
isrfs("export", f"{work}/share/vm", f"{work}/out", client="other")
check(open(f"{work}/out/disk", "rb").read(), allowed, "after the last suspend")
