/** What the buttons of the page ask for, and what they are told. */
import type { Progress } from '../daemon/messages.js'

export const ACTIONS = ['warm', 'checkpoint', 'suspend'] as const
export type Action = (typeof ACTIONS)[number]

export type ActionLine =
  | { readonly kind: 'progress'; readonly progress: Progress }
  | { readonly kind: 'notice'; readonly text: string }
  | { readonly kind: 'done'; readonly text: string }
  | { readonly kind: 'failed'; readonly text: string; readonly hint: string | undefined }
