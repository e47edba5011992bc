/** What the user types becomes values, or a UsageError. */
import test from 'ava'
import { UsageError } from '../../src/base/errors.js'
import { commandFirst } from '../../src/cli/arguments.js'
import { directoriesOf, toDurationMs, toGenerationNumber, toSize } from '../../src/cli/options.js'

const isCommand = (word: string): boolean => ['mount', 'status'].includes(word)
const takesValue = (option: string): boolean => option === '--client-dir'

test('a command is moved before options that stand in front of it', (t) => {
  t.deepEqual(commandFirst(['--client-dir', 'mount', 'status', '--json'], isCommand, takesValue), [
    'status',
    '--client-dir',
    'mount',
    '--json'
  ])
  t.deepEqual(commandFirst(['--client-dir=x', '--read-only', 'mount', 'v', 'm'], isCommand, takesValue), [
    'mount',
    '--client-dir=x',
    '--read-only',
    'v',
    'm'
  ])
})

test('a line without a command, or with an unknown one, stays as it is', (t) => {
  t.deepEqual(commandFirst(['--help'], isCommand, takesValue), ['--help'])
  t.deepEqual(commandFirst(['bogus', 'mount'], isCommand, takesValue), ['bogus', 'mount'])
  t.deepEqual(commandFirst(['--', 'mount'], isCommand, takesValue), ['--', 'mount'])
})

test('sizes, durations and generations are checked', (t) => {
  t.is(toSize('20G'), 20 * 2 ** 30)
  t.is(toDurationMs('2m'), 120_000)
  t.is(toGenerationNumber('7'), 7)
  for (const wrong of [
    () => toSize('much'),
    () => toSize('0'),
    () => toDurationMs('soon'),
    () => toGenerationNumber('0')
  ]) {
    t.throws(wrong, { instanceOf: UsageError })
  }
})

test('the client directory comes from the option, else it is the user’s', (t) => {
  t.is(directoriesOf({ clientDir: '/x' }).clientDirectory, '/x')
  t.is(directoriesOf({ clientDir: '/y' }).cacheDirectory, '/y/cache')
  t.is(directoriesOf({ clientDir: '/x', cacheDir: '/z' }).cacheDirectory, '/z')
  t.regex(directoriesOf({}).clientDirectory, /isrfs$/)
  t.throws(() => directoriesOf({ clientDir: '' }), { instanceOf: UsageError })
})
