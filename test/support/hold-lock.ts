/** hold-lock.js FILE: takes the lock, prints a line, and keeps it until it is killed. */
import { DirectoryLock } from '../../src/base/file-lock.js'

const lock = DirectoryLock.tryAcquire(process.argv[2] ?? '')
if (lock === undefined) throw new Error('somebody else has the lock')
process.stdout.write('held\n')
setInterval(() => lock, 60_000)
