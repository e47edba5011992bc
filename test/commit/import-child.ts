/** Imports in a process of its own and dies as from SIGKILL once something was sent: source, VM path. */
import { importDirectory } from '../../src/commit/import.js'
import { CLIENT } from './import-bed.js'

const [, , source = '', vmPath = ''] = process.argv
await importDirectory({
  source,
  vmPath,
  update: false,
  joinPieces: false,
  client: CLIENT,
  onProgress: ({ sentBytes }) => {
    if (sentBytes > 0) process.kill(process.pid, 'SIGKILL')
  },
  onWarning: () => undefined,
  threads: 1
})
