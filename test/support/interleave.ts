/**
 * All interleavings of a few threads over shared memory. The code under test is a compiled module of src/, turned into generator
 * functions that stop before each Atomics call (and before each call of a function that the test gives): what runs is what
 * production runs. Every state is visited once; what a thread does next follows from what it has seen, so a state is the shared
 * memory, the test's own state, and what each thread has seen.
 */
import fs from 'node:fs'
import path from 'node:path'
import { compileFunction } from 'node:vm'

export type Step = Generator<unknown, unknown>
export type Stepped = (...args: any[]) => Step

/** An operation that a thread is about to do. `blocked` ones wait until it answers false. */
interface Operation {
  readonly run: () => unknown
  readonly isBlocked?: () => boolean
}

/** Makes the functions of a compiled module as generators, with what the module has from elsewhere. */
export type Factory = (given: Readonly<Record<string, unknown>>) => Record<string, Stepped>

/** `given`: names that the module has from elsewhere. `calls`: those of them that are generators. `defect`: text to replace. */
export function stepped(
  module: string,
  given: readonly string[],
  calls: readonly string[],
  defect?: readonly [from: string, to: string]
): Factory {
  const file = path.join(import.meta.dirname, '../../src', module)
  const source = fs.readFileSync(file, 'utf8')
  let text = defect === undefined ? source : source.replace(...defect)
  if (defect !== undefined && text === source) throw new Error(`there is no ${defect[0]} in ${module}`)
  text = text.replace(/^import .*$/gm, '').replace(/^\/\/# sourceMappingURL.*$/m, '')
  const names = [...text.matchAll(/^(?:export )?function (\w+)/gm)].map((match) => match[1] ?? '')
  text = text.replace(/^export /gm, '').replace(/^function (\w+)/gm, 'function* $1')
  for (const name of [...names, ...calls]) text = wrapCalls(text, new RegExp(String.raw`(?<![\w.])${name}\(`, 'g'))
  text = wrapCalls(text, /Atomics\.\w+\(/g)
  const factory = compileFunction(`${text}\nreturn { ${names.join(', ')} }`, [...given])
  return (values) => factory(...given.map((name) => values[name])) as Record<string, Stepped>
}

/** `f(...)` becomes `(yield* f(...))`, whatever stands in the parentheses. */
function wrapCalls(text: string, pattern: RegExp): string {
  let from = 0
  for (;;) {
    pattern.lastIndex = from
    const match = pattern.exec(text)
    if (match === null) return text
    let depth = 1
    let end = match.index + match[0].length
    while (depth > 0) {
      if (text[end] === '(') depth++
      if (text[end] === ')') depth--
      end++
    }
    const call = text.slice(match.index, end)
    // not the place where it is declared, and not twice
    const before = text.slice(Math.max(0, match.index - 10), match.index)
    if (/(function\*\s|yield\* )$/.test(before)) {
      from = match.index + match[0].length
      continue
    }
    text = `${text.slice(0, match.index)}(yield* ${call})${text.slice(end)}`
    from = match.index + '(yield* '.length + match[0].length
  }
}

/** Each call is one step. Waiting in wait() ends with a notify, as with the real one: a lost one is a deadlock. */
export function steppedAtomics(): Record<string, Stepped> & { readonly waiting: Set<object> } {
  const waiting = new Set<{ at: number }>()
  const one = (run: (...args: any[]) => unknown): Stepped =>
    function* (...args) {
      return yield { run: () => run(...args) } satisfies Operation
    }
  const plain = Object.fromEntries(
    (['load', 'store', 'add', 'sub', 'exchange', 'or', 'and'] as const).map((name) => [
      name,
      one(Atomics[name] as never)
    ])
  )
  return {
    ...plain,
    notify: one((_words: Int32Array, at: number) => {
      for (const waiter of waiting) if (waiter.at === at) waiting.delete(waiter)
    }),
    *wait(words: Int32Array, at: number, expected: number): Generator<Operation, void> {
      const waiter = { at }
      const isEqual = yield {
        run: () => words[at] === expected && waiting.add(waiter).has(waiter)
      } satisfies Operation
      if (isEqual === true) yield { run: () => undefined, isBlocked: () => waiting.has(waiter) } satisfies Operation
    },
    waiting
  } as never
}

export function* step<Value>(run: () => Value): Generator<Operation, Value> {
  return yield { run }
}

export interface World {
  readonly threads: readonly (() => Step)[]
  /** all that can differ between two states, besides what the threads have seen */
  readonly state: () => string
  /** after every step and at the end: throws what is wrong */
  readonly check?: () => void
  readonly atEnd?: () => void
}

export interface Explored {
  readonly states: number
  readonly ends: number
}

interface Running {
  readonly generators: readonly Step[]
  readonly next: (Operation | undefined)[]
  readonly seen: string[]
  readonly world: World
}

/** Runs every interleaving; throws with the schedule when something is wrong. */
export function explore(create: () => World, statesMax = 3_000_000): Explored {
  const visited = new Set<string>()
  let ends = 0
  const pending: number[][] = [[]]
  for (let schedule = pending.pop(); schedule !== undefined; schedule = pending.pop()) {
    const running = start(create())
    try {
      for (const thread of schedule) advance(running, thread)
      for (;;) {
        const key = `${running.world.state()}|${running.seen.join('|')}`
        if (visited.has(key)) break
        visited.add(key)
        if (visited.size > statesMax) throw new Error('too many states')
        const able = running.next.flatMap((operation, thread) =>
          operation !== undefined && operation.isBlocked?.() !== true ? [thread] : []
        )
        const [first, ...others] = able
        if (first === undefined) {
          if (running.next.some((operation) => operation !== undefined)) throw new Error('everybody waits for ever')
          running.world.atEnd?.()
          ends++
          break
        }
        for (const other of others) pending.push([...schedule, other])
        schedule = [...schedule, first]
        advance(running, first)
      }
    } catch (error) {
      throw new Error(`schedule ${schedule.join('')}: ${String(error)}`, { cause: error })
    }
  }
  return { states: visited.size, ends }
}

function start(world: World): Running {
  const generators = world.threads.map((thread) => thread())
  const running: Running = { generators, next: [], seen: world.threads.map(() => ''), world }
  for (const [thread, generator] of generators.entries()) running.next[thread] = operationOf(generator.next())
  return running
}

function advance({ generators, next, seen, world }: Running, thread: number): void {
  const value = next[thread]?.run()
  seen[thread] = `${seen[thread] ?? ''},${String(value)}`
  next[thread] = operationOf(generators[thread]!.next(value))
  world.check?.()
}

function operationOf(result: IteratorResult<unknown>): Operation | undefined {
  return result.done === true ? undefined : (result.value as Operation)
}
