/**
 * The dashboard in a real browser (Debian's Chromium, headless): what it shows of a mount, what its buttons do, and who is refused.
 * What the page's modules have run counts for the coverage. ISRFS_SCREENSHOTS names a directory for pictures of it.
 */
import { type ChildProcess } from 'node:child_process'
import fs from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import anyTest, { type TestFn } from 'ava'
import { type Browser, chromium, type Page } from 'playwright-core'
import { Bed, CLI, isMounted, waitFor } from '../support/bed.js'

const test = anyTest as TestFn<{ bed: Bed }>

const MIB = 1024 * 1024
const BUILT = fileURLToPath(new URL('../../src/dashboard', import.meta.url))
const SCREENSHOTS = process.env['ISRFS_SCREENSHOTS']
const PATIENCE_MS = 60_000
/** as coloursOf tells it (colours.ts) */
const EMPTY_WHEN_DARK = '42-50-59'

test.beforeEach((t) => {
  t.timeout(240_000)
  t.context.bed = new Bed('dashboard')
})
test.afterEach.always((t) => t.context.bed.destroy())

interface Served {
  readonly address: string
  readonly port: number
  readonly token: string
  readonly process: ChildProcess
}

async function serve(bed: Bed): Promise<Served> {
  const process_ = bed.spawn(process.execPath, [CLI, '--client-dir', bed.path('client-a'), 'dashboard', '--port', '0'])
  let printed = ''
  process_.stdout?.on('data', (text: Buffer) => (printed += text.toString()))
  await waitFor(() => printed.includes('\n'), 'the address')
  const address = printed.trim()
  const { port, searchParams } = new URL(address)
  return { address, port: Number(port), token: searchParams.get('token')!, process: process_ }
}

async function makeVm(bed: Bed, name: string): Promise<string> {
  const source = bed.makeDirectory(`source-${name}`)
  fs.writeFileSync(path.join(source, 'disk.vmdk'), Buffer.alloc(24 * MIB, 'some disk'))
  fs.truncateSync(path.join(source, 'disk.vmdk'), 32 * MIB)
  fs.writeFileSync(path.join(source, 'memory.vmem'), Buffer.alloc(2 * MIB, 'memory'))
  await bed.mustIsrfs('a', 'import', source, bed.vm(name))
  return bed.vm(name)
}

async function open(address: string): Promise<{ browser: Browser; page: Page; complaints: string[] }> {
  const browser = await chromium.launch({
    executablePath: '/usr/bin/chromium',
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync'
    ]
  })
  const page = await browser.newPage({ viewport: { width: 1280, height: 1100 } })
  page.setDefaultTimeout(PATIENCE_MS)
  const complaints: string[] = []
  page.on('console', (message) => {
    // only this test reads a canvas
    if (message.text().includes('willReadFrequently')) return
    if (message.type() === 'error' || message.type() === 'warning')
      complaints.push(`${message.text()} ${message.location().url}`)
  })
  page.on('pageerror', (error) => complaints.push(String(error)))
  page.on('request', (request) => {
    if (!request.url().startsWith(new URL(address).origin)) complaints.push(`asks another host: ${request.url()}`)
  })
  await page.coverage.startJSCoverage()
  await page.goto(address)
  return { browser, page, complaints }
}

/** For c8: modules as they lie on the disk, by their paths. */
async function keepCoverage(page: Page): Promise<void> {
  const directory = process.env['NODE_V8_COVERAGE']
  const entries = await page.coverage.stopJSCoverage()
  if (directory === undefined) return
  const result = entries
    .filter(({ url }) => url.includes('/page/'))
    .map((entry) => ({ ...entry, url: `file://${BUILT}${new URL(entry.url).pathname}`, source: undefined }))
  fs.writeFileSync(path.join(directory, `coverage-${process.pid}-${Date.now()}-0.json`), JSON.stringify({ result }))
}

async function screenshot(page: Page, name: string): Promise<void> {
  if (SCREENSHOTS === undefined) return
  fs.mkdirSync(SCREENSHOTS, { recursive: true })
  await page.screenshot({ path: path.join(SCREENSHOTS, `${name}.png`), fullPage: true })
}

test('a mount from its first reads to its suspend, in the browser', async (t) => {
  const { bed } = t.context
  const vm = await makeVm(bed, 'testvm')
  const mountpoint = await bed.mount('a', vm, 'mnt')
  const otherVm = await makeVm(bed, 'other')
  fs.appendFileSync(bed.path('source-other', 'memory.vmem'), 'more')
  await bed.mustIsrfs('a', 'import', bed.path('source-other'), otherVm, '--update')
  await bed.mustIsrfs('a', 'prune', otherVm, '--keep', '1', '--yes')
  const other = await bed.mount('a', otherVm, 'other', '--read-only')
  const { address, process: server } = await serve(bed)
  const { browser, page, complaints } = await open(address)
  try {
    await page.getByText('live').waitFor()
    await page.locator('nav button', { hasText: other }).waitFor() // other tests may have mounts, too
    await page.locator('nav button', { hasText: mountpoint }).click()

    const fd = fs.openSync(path.join(mountpoint, 'disk.vmdk'), 'r+')
    fs.readSync(fd, Buffer.alloc(6 * MIB), 0, 6 * MIB, 0)
    fs.writeSync(fd, Buffer.alloc(MIB, 'changed'), 0, MIB, 12 * MIB)
    fs.fsyncSync(fd)
    await page
      .getByText(/suspend now: \d.* (KiB|MiB)/)
      .first()
      .waitFor()
    await page.locator('canvas').first().waitFor()
    await page.getByRole('img', { name: 'blocks 0 to 255 of disk.vmdk' }).waitFor()
    const colours = await page.locator('section canvas').first().evaluate(coloursOf)
    t.true(colours.length >= 3, `present, changed, absent and empty blocks look different: ${colours.join(' ')}`)
    await page.getByText('written').first().waitFor()
    const generations = page.locator('section', { hasText: 'Generations' }).locator('tbody tr')
    await generations.first().waitFor()
    t.is(await generations.count(), 1)
    await page.locator('.log li').first().waitFor()
    await page.waitForTimeout(4000) // some seconds of charts, for the picture
    await screenshot(page, 'dashboard')

    await page.getByRole('button', { name: 'closer' }).click()
    await page.getByRole('img', { name: /blocks 64 to 191 of/ }).waitFor()
    await page
      .locator('section canvas')
      .first()
      .hover({ position: { x: 10, y: 10 } })
    await page.getByText(/block \d+, .* into the file: \d+ %/).waitFor()
    await screenshot(page, 'dashboard-zoom')
    await page.getByRole('button', { name: 'whole file' }).click()
    await page.getByLabel('file').selectOption({ label: 'memory.vmem (2 MiB)' })
    await page.getByRole('img', { name: 'blocks 0 to 15 of memory.vmem' }).waitFor()

    await page.getByRole('button', { name: 'Warm' }).click()
    await page.getByText(/the cache holds everything/).waitFor()
    await page.getByText('may be pulled: everything is here').waitFor()
    await page.getByRole('button', { name: 'Checkpoint' }).click()
    await page.getByText(/generation 2 is durable on the share/).waitFor()
    await generations.nth(1).waitFor()

    await page.getByRole('button', { name: 'Suspend' }).click()
    await screenshot(page, 'dashboard-suspend')
    await page.getByRole('dialog').getByRole('button', { name: 'No' }).click()
    t.true(isMounted(mountpoint))
    await page.getByRole('button', { name: 'Suspend' }).click()
    await page.getByRole('dialog').getByRole('button', { name: 'Suspend' }).click()
    await page
      .getByRole('alert')
      .getByText(/is busy|in use/)
      .waitFor()
    t.true(isMounted(mountpoint), 'a file is open: the mount stays, and the page says so')
    fs.writeSync(fd, Buffer.alloc(4096, 'once more'), 0, 4096, 0)
    fs.closeSync(fd)
    await page.getByRole('button', { name: 'Suspend' }).click()
    await page.getByRole('dialog').getByRole('button', { name: 'Suspend' }).click()
    await waitFor(() => !isMounted(mountpoint), 'the end of the mount')
    await page.getByText('This mount has ended.').waitFor()
    await page.locator('nav button', { hasText: other }).click()
    await page.getByText('nothing to suspend').first().waitFor()
    await page.getByRole('cell', { name: /^pruned \d/ }).waitFor()
    t.is(await page.getByText(/Invalid Date|NaN/).count(), 0)
    await page.emulateMedia({ colorScheme: 'dark' })
    await waitFor(
      async () => (await page.locator('section canvas').first().evaluate(coloursOf)).includes(EMPTY_WHEN_DARK),
      'a map that is dark, too'
    )
    await page.emulateMedia({ colorScheme: 'light' })
    t.true(await page.getByRole('button', { name: 'Checkpoint' }).isDisabled())

    const { pid } = await bed.status('a', other)
    process.kill(pid, 'SIGSTOP')
    try {
      await page.getByText(/The daemon of .* does not answer/).waitFor()
    } finally {
      process.kill(pid, 'SIGCONT')
    }
    await page.getByText('nothing to suspend').first().waitFor()
    server.kill('SIGINT')
    await page.getByText(/the dashboard does not answer/).waitFor()
    t.deepEqual(
      complaints.filter((text) => !isOfAnEnd(text)),
      []
    )
    t.is((JSON.parse((await bed.mustIsrfs('a', 'log', vm, '--json')).stdout) as object[]).length, 3)
  } finally {
    await keepCoverage(page)
    await browser.close()
  }
})

/** What a browser says by itself when the page asks in the moment in which a mount, or the dashboard, ends. */
function isOfAnEnd(complaint: string): boolean {
  return (
    /ERR_(CONNECTION_REFUSED|INCOMPLETE_CHUNKED_ENCODING|EMPTY_RESPONSE)/.test(complaint) ||
    /status of 404 .*\/api\/mounts\/[0-9a-f]{16}\/(cells|log|generations)\?/.test(complaint)
  )
}

/** Runs in the page. */
function coloursOf(canvas: unknown): string[] {
  const element = canvas as { width: number; height: number; getContext(kind: string): any }
  const { data } = element.getContext('2d').getImageData(0, 0, element.width, element.height) as { data: Uint8Array }
  const found = new Set<string>()
  for (let at = 0; at < data.length; at += 4)
    if (data[at + 3]! > 0) found.add(`${data[at]}-${data[at + 1]}-${data[at + 2]}`)
  return [...found]
}

test('strangers are refused: wrong token, other names, other origins, other methods, large and malformed requests', async (t) => {
  const { bed } = t.context
  const vm = await makeVm(bed, 'testvm')
  const mountpoint = await bed.mount('a', vm, 'mnt')
  const { port, token } = await serve(bed)
  const ask = (method: string, where: string, headers: Record<string, string> = {}, body?: string): Promise<number> =>
    new Promise((resolve, reject) => {
      const request = http.request({ host: '127.0.0.1', port, method, path: where, headers }, (response) => {
        response.resume()
        resolve(response.statusCode ?? 0)
      })
      request.on('error', reject)
      request.end(body)
    })
  t.is(await ask('GET', `/?token=${token}`), 200)
  const all = await ask('GET', `/?token=${token}`, { host: `localhost:${port}` })
  t.is(all, 200)
  t.is(await ask('GET', '/'), 401)
  t.is(await ask('GET', '/?token='), 401)
  t.is(await ask('GET', `/?token=${token.slice(1)}`), 401)
  t.is(await ask('GET', `/?token=${token}`, { host: 'isrfs.example.org' }), 403)
  t.is(await ask('GET', `/?token=${token}`, { host: '127.0.0.1' }), 403, 'a name without this port')
  t.is(await ask('GET', `/api/events?token=${token}`, { origin: 'http://evil.example.org' }), 403)
  t.is(await ask('GET', `/api/events?token=${token}`, { 'sec-fetch-site': 'cross-site' }), 403)
  t.is(await ask('GET', '/api/events'), 401)
  t.is(await ask('GET', '/api/mounts/0123456789abcdef/log'), 401)
  t.is(await ask('GET', `/elsewhere?token=${token}`), 404)
  t.is(await ask('GET', `/page/../server.js?token=${token}`), 404)
  t.is(await ask('DELETE', `/?token=${token}`), 405)
  t.is(await ask('PUT', `/?token=${token}`), 405)

  const id = await idOf(port, token, mountpoint)
  const good = { 'x-isrfs-token': token }
  const cells = `/api/mounts/${id}/cells`
  t.is(await ask('GET', `${cells}?token=${token}&inode=2&firstBlock=0&blocks=9&cells=3`), 200)
  t.is(await ask('GET', `${cells}?token=${token}&inode=2&firstBlock=0&blocks=9&cells=99999999`), 400)
  t.is(await ask('GET', `${cells}?token=${token}&inode=x`), 400)
  t.is(await ask('GET', `${cells}?token=${token}&inode=99&firstBlock=0&blocks=9&cells=3`), 404)
  for (const action of ['warm', 'checkpoint', 'suspend']) {
    const where = `/api/mounts/${id}/${action}`
    t.is(await ask('GET', where, good), 404, 'nothing is changed by GET')
    t.is(
      await ask('POST', `${where}?token=${token}`),
      401,
      'a token in the address changes nothing: a form could send it'
    )
    t.is(await ask('POST', where, { ...good, origin: 'null' }), 403)
    t.is(await ask('POST', where, { ...good, 'content-length': '5000' }, 'x'.repeat(5000)), 413)
    t.is(await ask('POST', `/api/mounts/ffffffffffffffff/${action}`, good), 404)
  }
  t.is(await ask('GET', `/?token=${token}`, { cookie: 'x'.repeat(40_000) }), 431)
  t.regex(await raw(port, 'NONSENSE\r\n\r\n'), /^HTTP\/1\.1 400/)
  t.is(await ask('GET', `/?token=${token}`), 200, 'it goes on')
  t.true(isMounted(mountpoint))
  t.is((await bed.isrfs('a', 'dashboard', '--port', '70000')).code, 2)
  t.regex((await bed.isrfs('a', 'dashboard', '--port', String(port))).stderr, /cannot listen on port \d+.*\n?.*--port/)
})

async function idOf(port: number, token: string, mountpoint: string): Promise<string> {
  const controller = new AbortController()
  const response = await fetch(`http://127.0.0.1:${port}/api/events?token=${token}`, { signal: controller.signal })
  let text = ''
  for await (const piece of response.body!) {
    text += Buffer.from(piece as Uint8Array).toString()
    if (/\n\n/.test(text)) break
  }
  controller.abort()
  const data = /^data: (.*)$/m.exec(text)?.[1] ?? ''
  const { mounts } = JSON.parse(data) as { mounts: { id: string; mountpoint: string }[] }
  return mounts.find((mount) => mount.mountpoint === mountpoint)!.id
}

function raw(port: number, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = ''
    const socket = net.connect(port, '127.0.0.1', () => socket.end(text))
    socket.on('data', (piece) => (answer += piece.toString()))
    socket.on('close', () => resolve(answer)).on('error', reject)
  })
}
