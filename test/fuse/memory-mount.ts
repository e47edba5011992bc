/** Mounts of the in-memory tree, each served by a process of its own, on a directory of its own. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'

export interface MemoryMount {
  readonly directory: string
  readonly lines: string[]
  /** Unmounts as the daemon does and waits for the serving process; answers its exit code. */
  unmount(): Promise<number>
  /** exit code of the serving process, when it has ended */
  readonly exited: Promise<number>
  terminate(): void
  /** For teardown: whatever state the mount is in, it goes. */
  remove(): Promise<void>
}

export async function mountMemory(...words: string[]): Promise<MemoryMount> {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'isrfs-fuse-test-'))
  const server = spawn(process.execPath, [path.join(import.meta.dirname, 'serve.js'), directory, ...words], {
    stdio: ['ignore', 'pipe', 'inherit']
  })
  const exited = once(server, 'exit').then(() => server.exitCode ?? -1)
  const lines: string[] = []
  const output = createInterface(server.stdout)
  await new Promise<void>((resolve, reject) => {
    output.on('line', (line) => {
      lines.push(line)
      if (line === 'mounted') resolve()
    })
    void exited.then(() => {
      if (lines.includes('mounted')) return
      fs.rmdirSync(directory)
      reject(new Error('the serving process ended before it had mounted'))
    })
  })

  const remove = async () => {
    spawnSync('fusermount3', ['-uz', directory], { stdio: 'ignore' })
    if (server.exitCode === null && server.signalCode === null) {
      const timer = setTimeout(() => server.kill('SIGKILL'), 5000)
      await exited
      clearTimeout(timer)
    }
    fs.rmdirSync(directory)
  }
  const unmount = async () => {
    for (const [command = '', ...words] of [
      ['sync', '-f', directory],
      ['fusermount3', '-u', directory]
    ]) {
      const { status, stderr } = spawnSync(command, words, { encoding: 'utf8' })
      if (status !== 0) throw new Error(`${command} failed: ${stderr}`)
    }
    return exited
  }
  return { directory, lines, unmount, exited, terminate: () => void server.kill('SIGTERM'), remove }
}
