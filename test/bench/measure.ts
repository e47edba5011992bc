/** Rows of the benchmark: contenders that do the same work in turn (A B A B ...), medians, and goals as ratios of them. */
import fs from 'node:fs'

export interface Contender {
  readonly name: string
  /** for what takes minutes each time */
  readonly roundsMax?: number
  /** Does the work once; the figure in the row's unit. */
  measure(): Promise<number>
}

export interface Goal {
  /** isrfs against this contender; undefined: the figure itself */
  readonly against?: string
  /** isrfs has to be at least (or at most, where less is better) this times the other, or this figure */
  readonly factor: number
}

/** How a figure grows, for each contender: pairs of `x` and the row's unit. */
export interface Curves {
  readonly x: string
  readonly lines: Record<string, [number, number][]>
}

export interface Row {
  /** number in the table of goals, with a letter where a number has several figures, and further words after a comma */
  readonly id: string
  readonly work: string
  readonly unit: 'MB/s' | 'IOPS' | 's' | 'µs' | 'MB' | 'ratio' | 'calls' | 'switches'
  readonly better: 'more' | 'less'
  readonly contenders: readonly Contender[]
  readonly goals: readonly Goal[]
  readonly rounds: number
  /** what a reader has to know */
  readonly note?: string
  /** filled while it is measured */
  readonly curves?: Curves
  /** what a figure consists of, by contender; filled while it is measured */
  readonly details?: Record<string, string>
}

export interface GoalResult extends Goal {
  /** null: one of the two was not measured */
  readonly ratio: number | null
  readonly isMet: boolean
}

/** Under what a row was measured; rows of one report may come from several runs. */
export interface Run {
  /** UTC, to the minute */
  readonly date: string
  readonly mode: string
  /** the last commit that touched what is measured or measures */
  readonly commit: string
  /** load average before the run: what else the machine did */
  readonly loadBefore: string
}

export interface RowResult {
  readonly id: string
  readonly work: string
  readonly unit: Row['unit']
  readonly better: Row['better']
  readonly note?: string
  /** what isrfs was mounted with, apart from the defaults */
  readonly options?: readonly string[]
  readonly samples: Readonly<Record<string, readonly number[]>>
  readonly medians: Readonly<Record<string, number>>
  readonly goals: readonly GoalResult[]
  /** contenders that failed, and how */
  readonly failures: Readonly<Record<string, string>>
  readonly curves?: Curves
  readonly details?: Readonly<Record<string, string>>
  readonly run: Run
  /** of the processors' time while it was measured: what other machines on the same host have taken, in per cent */
  readonly stolenPercent: number
}

export interface Scale {
  readonly isQuick: boolean
  readonly rounds: number
}

export const SELF = 'isrfs'

/** `untilQuiet` resolves when nothing of what was measured before runs any more. */
export async function measureRow(
  row: Row,
  run: Run,
  say: (text: string) => void,
  untilQuiet: () => Promise<void>
): Promise<RowResult> {
  const samples: Record<string, number[]> = {}
  const failures: Record<string, string> = {}
  const before = processorTicks()
  for (let round = 0; round < row.rounds; round++) {
    for (const { name, roundsMax = Infinity, measure } of row.contenders) {
      if (name in failures || round >= roundsMax) continue
      await untilQuiet()
      try {
        const figure = await measure()
        ;(samples[name] ??= []).push(figure)
        say(`${row.id} ${name}: ${round3(figure)} ${row.unit}`)
      } catch (error) {
        failures[name] = (error instanceof Error ? error.message : String(error)).slice(0, 400)
        say(`${row.id} ${name}: failed: ${failures[name]}`)
      }
    }
  }
  const medians = Object.fromEntries(Object.entries(samples).map(([name, figures]) => [name, median(figures)]))
  const after = processorTicks()
  const stolenPercent = (100 * (after.stolen - before.stolen)) / Math.max(after.all - before.all, 1)
  const { contenders: _contenders, rounds: _rounds, ...told } = row
  return {
    ...told,
    samples,
    medians,
    goals: row.goals.map((goal) => resultOf(goal, medians, row.better)),
    failures,
    run,
    stolenPercent: Number(stolenPercent.toFixed(1))
  }
}

function processorTicks(): { readonly all: number; readonly stolen: number } {
  const [, text = ''] = /^cpu +(.*)$/m.exec(fs.readFileSync('/proc/stat', 'utf8')) ?? []
  const ticks = text.split(' ').map(Number).slice(0, 8) // what follows is counted in these already
  return { all: ticks.reduce((sum, one) => sum + one, 0), stolen: ticks[7] ?? 0 }
}

function resultOf(goal: Goal, medians: Readonly<Record<string, number>>, better: Row['better']): GoalResult {
  const own = medians[SELF]
  const other = goal.against === undefined ? 1 : medians[goal.against]
  if (own === undefined || other === undefined || Number.isNaN(own / other))
    return { ...goal, ratio: null, isMet: false }
  const ratio = own / other
  return { ...goal, ratio, isMet: better === 'more' ? ratio >= goal.factor : ratio <= goal.factor }
}

/**
 * Figures that a measurement yields besides its own. Rows after it take them, as often as it was measured and in
 * that order.
 */
export class SideFigures {
  readonly #figures = new Map<string, number[]>()

  note(name: string, figure: number): void {
    const figures = this.#figures.get(name) ?? []
    this.#figures.set(name, figures)
    figures.push(figure)
  }

  take(name: string): number {
    const figure = this.#figures.get(name)?.shift()
    if (figure === undefined) throw new Error('the row that measures it has failed')
    return figure
  }

  /** A contender of a later row. */
  contender(name: string, figureName: string): Contender {
    return { name, measure: () => Promise.resolve().then(() => this.take(figureName)) }
  }
}

export function median(figures: readonly number[]): number {
  const sorted = [...figures].sort((first, second) => first - second)
  const middle = Math.floor(sorted.length / 2)
  const [low = 0, high = 0] = [sorted[Math.floor((sorted.length - 1) / 2)], sorted[middle]]
  return (low + high) / 2
}

export function round3(figure: number): string {
  return figure >= 100 ? String(Math.round(figure)) : String(Number(figure.toPrecision(3)))
}
