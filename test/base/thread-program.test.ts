import test from 'ava'
import { Piscina } from 'piscina'
import { threadProgram } from '../../src/base/program-files.js'

const filename = new URL('../support/loaded-by.js', import.meta.url).href

test('threads of a pool load their program with import(): with require(), ending one meanwhile aborts the process', async (t) => {
  const { execArgv } = threadProgram('commit/commit-worker.js')
  const pool = new Piscina({ filename, execArgv, maxThreads: 1 })
  t.teardown(() => pool.destroy())
  t.notRegex((await pool.run(undefined)) as string, /require/i)
})
