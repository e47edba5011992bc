/** How a mount ended, in one sentence. */
import type { Outcome } from '../daemon/messages.js'
import type { Salvage } from '../daemon/salvage.js'
import { bytes } from './figures.js'

export function outcomeText(vm: string, outcome: Outcome): string {
  switch (outcome.kind) {
    case 'published': {
      const verified = outcome.verified ? ', read back and verified' : ''
      return `generation ${String(outcome.generation)} of ${vm} is durable on the share: ${bytes(outcome.changedBytes)} changed, ${bytes(outcome.sentBytes)} sent${verified}`
    }
    case 'branch':
      return `the changes are kept as branch ${outcome.branch} of ${vm}, durable on the share, and are not the next generation: ${outcome.why}`
    case 'unchanged':
      return `nothing was changed; generation ${String(outcome.generation)} of ${vm} is still the newest`
    case 'nothing-to-publish':
      return outcome.why === 'read-only'
        ? `${vm} was mounted read-only; nothing to publish`
        : `changes to ${vm} were discarded`
  }
}

export function salvageText(vm: string, { branch, kept }: Salvage): string {
  const aside = `The damaged session was set aside, whole as it was: ${kept}`
  return branch === null
    ? `nothing that differs from the generation it is based on was intact: no branch was made. ${aside}`
    : `what was intact is branch ${branch} of ${vm}, durable on the share. Look at it before you trust it (isrfs mount ${vm} <mountpoint> --generation ${branch}); isrfs rollback ${vm} ${branch} makes it the newest generation. ${aside}`
}
