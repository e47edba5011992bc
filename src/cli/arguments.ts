/**
 * Options may stand anywhere on the line. commander takes a command's own options only after its name, so the name is
 * moved to the front.
 */

/** `takesValue` tells of an option as it is typed ("--client-dir") whether the next word belongs to it. */
export function commandFirst(
  words: readonly string[],
  isCommand: (word: string) => boolean,
  takesValue: (option: string) => boolean
): string[] {
  for (let index = 0; index < words.length; index++) {
    const word = words[index] ?? ''
    if (word === '--') break
    if (word.startsWith('-')) {
      if (!word.includes('=') && takesValue(word)) index++
      continue
    }
    if (isCommand(word)) return [word, ...words.slice(0, index), ...words.slice(index + 1)]
    break
  }
  return [...words]
}
