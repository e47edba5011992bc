/**
 * What test/run goes on with once everything is installed: build, walls and layout, tests, coverage. A step that
 * fails counts as one failure and does not keep the later ones from running, so one run tells everything.
 * The last line is always "N passed, N failed"; the exit code is 0 only when something passed and nothing failed.
 */
import { spawn } from 'node:child_process'
import { readdirSync, readFileSync, rmSync } from 'node:fs'
import path from 'node:path'
import { Parser } from 'tap-parser'

const root = path.dirname(import.meta.dirname)
const coverageDirectory = path.join(root, 'coverage', 'v8')
const commands = path.join(root, 'node_modules', '.bin')

/**
 * Mounts take the direct transport where they may choose; the conformance suite runs on both by itself. These run on the binding too;
 * test/long has the other files there.
 */
const endToEnd = ['cycle', 'kill'].map((name) => `build/test/end-to-end/${name}.test.js`)

let failedSteps = 0
const failures = []

rmSync(path.join(root, 'build'), { recursive: true, force: true })
rmSync(path.join(root, 'coverage'), { recursive: true, force: true })

// Side by side, for machines of two processors: what takes one of them beside what takes the other, or waits.
await Promise.all([build(), look()])
const [onDirect, onBinding] = await Promise.all([
  runTests('tests', [], {}, process.stdout),
  runTests('whole lives of mounts on the other transport', ['--concurrency=1', ...endToEnd], {
    ISRFS_TEST_TRANSPORT: 'binding'
  })
])
await step('coverage', path.join(commands, 'c8'), [
  'report',
  ...modulesWithoutCode().map((file) => `--exclude=${file}`)
])

const passed = onDirect.passed + onBinding.passed
const failed = onDirect.failed + onBinding.failed + failedSteps
process.exitCode = failed === 0 && passed > 0 ? 0 : 1
for (const name of failures) console.log(`failed: ${name}`)
console.log(`${passed} passed, ${failed} failed`)

async function build() {
  await step('build', 'npm', ['run', '--silent', 'build:test'])
}

async function look() {
  await step('lint and layer walls', path.join(commands, 'eslint'), ['.'])
  await step('layout', path.join(commands, 'prettier'), ['--check', '.'])
}

async function step(name, command, args) {
  console.log(`\n# ${name}`)
  const code = await exitOf(spawn(command, args, { cwd: root, stdio: 'inherit' }))
  if (code !== 0) fail(`${name} failed (${code})`)
}

/**
 * Runs the tests and counts them from ava's TAP. A skipped test counts as failed: one that cannot run here has to say
 * so. Processes that tests start inherit NODE_V8_COVERAGE, so daemons are counted too. Without `output` the TAP is printed when it is
 * complete.
 */
async function runTests(title, files, env, output) {
  output?.write(`\n# ${title}\n`)
  const ava = spawn(path.join(commands, 'ava'), ['--tap', ...files], {
    cwd: root,
    env: { ...process.env, ...env, NODE_V8_COVERAGE: coverageDirectory },
    stdio: ['ignore', 'pipe', 'inherit']
  })
  const parser = new Parser()
  let passed = 0
  let failed = 0
  parser.on('assert', ({ ok, skip, todo, name }) => {
    if (ok && !skip && !todo) {
      passed += 1
      return
    }
    failed += 1
    failures.push(name)
  })
  const parsed = new Promise((resolve) => parser.once('complete', resolve))
  ava.stdout.pipe(parser)
  const kept = []
  if (output === undefined) ava.stdout.on('data', (chunk) => kept.push(chunk))
  else ava.stdout.pipe(output, { end: false })
  const code = await exitOf(ava)
  await parsed
  if (output === undefined) console.log(`\n# ${title}\n${Buffer.concat(kept)}`)

  if (code !== 0 && failed === 0) fail(`the tests ended early (${code}): a time-out or a crash; npx ava names the test`)
  if (passed + failed === 0) fail('no test has run')
  return { passed, failed }
}

/** Modules that hold types only: nothing of them can run, and c8 would count every line of them as missed. */
function modulesWithoutCode() {
  const notCode = /\/\*[^]*?\*\/|\/\/.*|export \{\};|\s/g
  return readdirSync(path.join(root, 'build', 'src'), { recursive: true })
    .filter((name) => name.endsWith('.js'))
    .map((name) => path.join('build', 'src', name))
    .filter((file) => readFileSync(path.join(root, file), 'utf8').replace(notCode, '') === '')
}

function fail(message) {
  failedSteps += 1
  failures.push(message)
  console.log(`not ok - ${message}`)
}

/** The exit code, or what ended the process instead of one. */
function exitOf(child) {
  return new Promise((resolve) => {
    child.once('error', (error) => resolve(error.message))
    child.once('close', (code, signal) => resolve(code ?? signal))
  })
}
