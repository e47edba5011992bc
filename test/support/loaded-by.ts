/** The program of a thread that tells how it was loaded. */
const stack = new Error().stack ?? ''

export default function loadedBy(): string {
  return stack
}
