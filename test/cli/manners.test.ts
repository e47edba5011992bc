/** Help, suggestions, colour and interruptions: what a person meets who does not know isrfs yet. */
import { once } from 'node:events'
import fs from 'node:fs'
import path from 'node:path'
import anyTest, { type TestFn } from 'ava'
import { BLOCK_BYTES, BLOCKS_PER_REGION } from '../../src/base/units.js'
import { digestAt, readFooter } from '../../src/cache/region-file.js'
import { coloured, isColourful } from '../../src/cli/colour.js'
import { EXAMPLES } from '../../src/cli/examples.js'
import { buildProgram } from '../../src/cli/program.js'
import { Bed, CLI, waitFor } from '../support/bed.js'

const test = anyTest as TestFn<{ bed: Bed }>

test.beforeEach((t) => {
  t.timeout(300_000)
  t.context.bed = new Bed('manners')
})
test.afterEach.always((t) => t.context.bed.destroy())

test('every command has examples that it understands, and no example is of a command that is not there', async (t) => {
  const program = buildProgram('0')
  const names = program.commands.map((command) => command.name()).filter((name) => name !== 'manual')
  t.deepEqual(Object.keys(EXAMPLES).sort(), names.sort())
  for (const [name, examples] of Object.entries(EXAMPLES)) {
    t.true(examples.length > 0)
    for (const { line } of examples) {
      const fresh = buildProgram('0')
      let understood = ''
      for (const command of fresh.commands) command.action(() => void (understood = command.name()))
      const words = line
        .replace(/ [|>].*/, '')
        .split(' ')
        .slice(1)
      await fresh.parseAsync(words, { from: 'user' })
      t.is(understood, name, line)
    }
  }
})

test('what was meant is suggested, for commands and options', async (t) => {
  const { bed } = t.context
  for (const [words, meant] of [
    [['mont'], 'mount'],
    [['unmunt', '/x'], 'unmount'],
    [['statsu'], 'status'],
    [['mount', '/s/v', '/m', '--read-ony'], '--read-only'],
    [['check', '/s/v', '--read-dat'], '--read-data']
  ] as const) {
    const { code, stderr } = await bed.isrfs('a', ...words)
    t.is(code, 2)
    t.regex(stderr, /^isrfs: unknown (command|option)/)
    t.regex(stderr, new RegExp(`Did you mean ${meant}\\?`))
  }
})

test('help has examples, exit codes and the variables that stand for options', async (t) => {
  const { stdout } = await t.context.bed.mustIsrfs('a', 'mount', '--help')
  t.regex(stdout, /Examples:\n {2}# resume\n {2}isrfs mount \/export\/testvm \/mnt\/testvm\n/)
  t.regex(stdout, /Exit codes: 0 done/)
  t.regex(stdout, /--cache-size <size> .*default: 20G; ISRFS_CACHE_SIZE/s)
  t.notRegex(stdout, /\u001B/)
})

test('colour is for terminals, and not for those who said NO_COLOR', async (t) => {
  t.true(isColourful({ isTTY: true }, {}))
  t.false(isColourful({ isTTY: true }, { NO_COLOR: '1' }))
  t.true(isColourful({ isTTY: true }, { NO_COLOR: '' }))
  t.false(isColourful({ isTTY: true }, { TERM: 'dumb' }))
  t.false(isColourful({}, {}))
  t.is(coloured('red', 'x', {}), 'x')
  const { bed } = t.context
  const onTerminal = async (env: NodeJS.ProcessEnv): Promise<string> => {
    const line = `'${process.execPath}' '${CLI}' status /nowhere; '${process.execPath}' '${CLI}' mount --help`
    // Node.js takes a terminal of a CI for one without colours
    const unset = { NO_COLOR: undefined, FORCE_COLOR: undefined, CI: undefined }
    const options = { env: { ...process.env, ...unset, TERM: 'xterm', ...env } }
    return (await bed.command('script', ['-qec', line, '/dev/null'], options)).stdout
  }
  t.regex(await onTerminal({}), /\u001B\[31m.*isrfs:.*is not an isrfs mount[^]*\u001B\[1mUsage/)
  t.notRegex(await onTerminal({ NO_COLOR: '1' }), /\u001B\[\d/)
})

test('a daemon that is stopped is told of within two seconds, by status, metrics and the list of all', async (t) => {
  const { bed } = t.context
  fs.writeFileSync(path.join(bed.makeDirectory('source'), 'file'), 'first')
  await bed.mustIsrfs('a', 'import', bed.path('source'), bed.vm())
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt', '--read-only')
  const { pid } = await bed.status('a', mountpoint)
  process.kill(pid, 'SIGSTOP')
  try {
    const status = await bed.isrfs('a', 'status', mountpoint)
    t.is(status.code, 1)
    t.regex(status.stderr, new RegExp(`the daemon of ${mountpoint} \\(process ${pid}, stopped\\) does not answer`))
    t.regex(status.stderr, new RegExp(`kill -CONT ${pid}`))
    for (const command of ['metrics', 'unmount', 'checkpoint', 'warm']) {
      const { code, stderr } = await bed.isrfs('a', command, mountpoint)
      t.is(code, 1, 'none of them waits for ever')
      t.regex(stderr, new RegExp(`stopped\\) does not answer\n.*kill -CONT ${pid}`), command)
    }
    for (const command of ['status', 'metrics']) {
      const all = await bed.isrfs('a', command)
      t.regex(all.stderr, new RegExp(`the daemon of ${mountpoint} \\(process ${pid}, stopped\\) does not answer`))
      t.notRegex(all.stderr, /nothing is mounted/)
    }
    // its socket is lost as well: the mount itself is asked, in a child that is killed
    const [socket = ''] = (await import('../../src/daemon/socket-path.js')).findSockets(mountpoint)
    fs.renameSync(socket, `${socket}.away`)
    const silent = await bed.isrfs('a', 'status', mountpoint)
    fs.renameSync(`${socket}.away`, socket)
    t.regex(silent.stderr, /stopped\) does not answer/)
  } finally {
    process.kill(pid, 'SIGCONT')
  }
  await bed.unmount('a', mountpoint)
})

test('a result that cannot be written is a failure, a reader that has gone is none', async (t) => {
  const { bed } = t.context
  const run = (line: string): ReturnType<Bed['command']> =>
    bed.command('bash', ['-c', `set -o pipefail; '${process.execPath}' '${CLI}' ${line}`])
  const full = await run('completion bash > /dev/full')
  t.is(full.code, 1)
  t.regex(full.stderr, /the result cannot be written: ENOSPC/)
  const gone = await run('completion bash | true')
  t.is(gone.code, 0)
  t.is(gone.stderr, '')
})

test('metrics of a mount whose daemon is dead say so', async (t) => {
  const { bed } = t.context
  fs.writeFileSync(path.join(bed.makeDirectory('source'), 'file'), 'first')
  await bed.mustIsrfs('a', 'import', bed.path('source'), bed.vm())
  const mountpoint = await bed.mount('a', bed.vm(), 'mnt', '--read-only')
  await bed.killDaemon('a', mountpoint)
  t.regex((await bed.isrfs('a', 'metrics', mountpoint)).stderr, /the daemon of .* is dead/)
})

/** Starts the command, sends ^C when `when` holds, and resolves with how it ended. */
async function interrupted(
  bed: Bed,
  words: readonly string[],
  when: () => boolean
): Promise<{ ended: string; stderr: string }> {
  const child = bed.spawn(process.execPath, [CLI, '--client-dir', bed.path('client-a'), ...words])
  let stderr = ''
  child.stderr?.on('data', (text: Buffer) => (stderr += text.toString()))
  child.stdout?.resume()
  let hasExited = false
  const exit = once(child, 'exit').then(([code, signal]) => {
    hasExited = true
    return String(code ?? signal)
  })
  await waitFor(() => hasExited || when(), `${words[0] ?? ''} to begin`)
  child.kill('SIGINT')
  return { ended: await exit, stderr }
}

function regionsOf(cache: string): string[] {
  if (!fs.existsSync(cache)) return []
  const names = fs.readdirSync(cache, { recursive: true, encoding: 'utf8' })
  return names.filter((name) => /\/\d+-\d+$/.test(name)).map((name) => path.join(cache, name))
}

/** That a later mount or warm finds there. */
function blocksIn(cache: string): number {
  let blocks = 0
  for (const region of regionsOf(cache)) {
    const fd = fs.openSync(region, 'r')
    const digests = readFooter(fd)
    fs.closeSync(fd)
    for (let block = 0; block < BLOCKS_PER_REGION; block++)
      if (digestAt(digests, block).some((byte) => byte !== 0)) blocks++
  }
  return blocks
}

test('^C in import, export, check, warm and recover leaves nothing broken, and the same again goes through', async (t) => {
  const { bed } = t.context
  const source = bed.makeDirectory('source')
  const bytes = Buffer.alloc(96 * 1024 * 1024)
  for (let at = 0; at < bytes.length; at += 4) bytes.writeUInt32LE(Math.imul(at, 2654435761) >>> 0, at)
  fs.writeFileSync(path.join(source, 'disk'), bytes)
  const tidy = (ended: { ended: string; stderr: string }): void => {
    t.true(['0', '1', '130', 'SIGINT', '5'].includes(ended.ended), `${ended.ended} ${ended.stderr}`)
    t.notRegex(ended.stderr, / at .*\.js:/)
  }
  const hasEntries = (directory: string) => (): boolean =>
    fs.existsSync(directory) && fs.readdirSync(directory).length > 0

  tidy(await interrupted(bed, ['import', source, bed.vm()], hasEntries(bed.path('share'))))
  if (!fs.existsSync(bed.vm())) await bed.mustIsrfs('a', 'import', source, bed.vm())
  t.regex((await bed.mustIsrfs('a', 'check', bed.vm(), '--read-data')).stderr, /is whole/)

  tidy(await interrupted(bed, ['check', bed.vm(), '--read-data'], () => true))
  tidy(await interrupted(bed, ['export', bed.vm(), bed.path('out')], hasEntries(bed.path('out'))))
  await bed.mustIsrfs('a', 'export', bed.vm(), bed.path('again'))
  t.true(fs.readFileSync(bed.path('again', 'disk')).equals(bytes))

  const fetchedBytes = async (client: string): Promise<number> => {
    const { stdout } = await bed.mustIsrfs(client, 'warm', bed.vm(), '--json')
    return (JSON.parse(stdout) as { fetchedBytes: number }).fetchedBytes
  }
  tidy(await interrupted(bed, ['warm', bed.vm()], () => regionsOf(bed.path('client-a', 'cache')).length > 1))
  const kept = blocksIn(bed.path('client-a', 'cache')) / (bytes.length / BLOCK_BYTES)
  t.true(kept > 0, 'what was fetched stayed')
  const allBytes = await fetchedBytes('b')
  const restBytes = await fetchedBytes('a')
  t.true(restBytes <= allBytes * (1.05 - kept), `${restBytes} of ${allBytes} bytes again, with ${kept} of them here`)

  const mountpoint = await bed.mount('a', bed.vm(), 'mnt', '--no-trickle')
  const changed = Buffer.alloc(48 * 1024 * 1024, 9)
  for (let at = 0; at < changed.length; at += 512) changed.writeUInt32LE(at, at)
  const fd = fs.openSync(path.join(mountpoint, 'disk'), 'r+')
  fs.writeSync(fd, changed, 0, changed.length, 0)
  fs.fsyncSync(fd)
  fs.closeSync(fd)
  await bed.killDaemon('a', mountpoint)
  await bed.command('fusermount3', ['-uz', mountpoint])
  const chunks = (): number => fs.readdirSync(path.join(bed.vm(), 'chunks'), { recursive: true }).length
  const before = chunks()
  tidy(await interrupted(bed, ['recover', bed.vm()], () => chunks() > before))
  const recovered = await bed.mustIsrfs('a', 'recover', bed.vm())
  t.regex(recovered.stdout, /generation 2|nothing of/)
  t.regex((await bed.mustIsrfs('a', 'check', bed.vm(), '--read-data')).stderr, /is whole/)
  await bed.mustIsrfs('a', 'export', bed.vm(), bed.path('recovered'))
  changed.copy(bytes, 0)
  t.true(fs.readFileSync(bed.path('recovered', 'disk')).equals(bytes))
  t.regex((await bed.mustIsrfs('a', 'lease', bed.vm())).stdout, /^free/)
})
