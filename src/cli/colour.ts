/** Colour for terminals only, and not for people who have said NO_COLOR (https://no-color.org). */
import { styleText } from 'node:util'

type Style = Parameters<typeof styleText>[0]

export function isColourful(
  stream: { readonly isTTY?: boolean },
  environment: NodeJS.ProcessEnv = process.env
): boolean {
  return stream.isTTY === true && (environment['NO_COLOR'] ?? '') === '' && environment['TERM'] !== 'dumb'
}

export function coloured(style: Style, text: string, stream: { readonly isTTY?: boolean }): string {
  return isColourful(stream) ? styleText(style, text) : text
}
