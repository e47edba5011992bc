/**
 * Preloaded into isrfs (node --import) by test/end-to-end/share-away.test.ts: changes trickle to the share ten times as often,
 * and are quiet after a tenth of the time. Nothing else runs on another clock.
 */
const SPEED = 10
const TRICKLE_INTERVAL_MS = 3000
const { setInterval } = globalThis
const now = performance.now.bind(performance)

globalThis.setInterval = (callback, ms, ...rest) =>
  setInterval(callback, ms === TRICKLE_INTERVAL_MS ? ms / SPEED : ms, ...rest)
// The server's clock is measured with this one, too, and is asked again when the two of this machine disagree.
if (process.argv.some((word) => word.endsWith('daemon/main.js'))) performance.now = () => now() * SPEED
