/** Bit sets in a Uint32Array: the state of pages and blocks without an object each. */

export function bitWords(bits: number): number {
  return Math.ceil(bits / 32)
}

export function getBit(words: Uint32Array, index: number): boolean {
  return (((words[index >>> 5] ?? 0) >>> (index & 31)) & 1) === 1
}

export function setBit(words: Uint32Array, index: number): void {
  const word = index >>> 5
  words[word] = (words[word] ?? 0) | (1 << (index & 31))
}

export function clearBit(words: Uint32Array, index: number): void {
  const word = index >>> 5
  words[word] = (words[word] ?? 0) & ~(1 << (index & 31))
}

export function setBits(words: Uint32Array, first: number, count: number): void {
  for (let index = first; index < first + count; index++) setBit(words, index)
}

export function clearBits(words: Uint32Array, first: number, count: number): void {
  for (let index = first; index < first + count; index++) clearBit(words, index)
}

export function countBits(words: Uint32Array): number {
  let total = 0
  for (const word of words) {
    let rest = word
    while (rest !== 0) {
      rest &= rest - 1
      total++
    }
  }
  return total
}

export function anyBit(words: Uint32Array): boolean {
  return words.some((word) => word !== 0)
}
