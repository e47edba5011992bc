/** Waiting with a limit. */

/** True when the promise resolves in time, false when it is late; rejects as it does. */
export async function withinMs(promise: Promise<unknown>, limitMs: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<false>((resolve) => (timer = setTimeout(() => resolve(false), limitMs)))
  try {
    return await Promise.race([promise.then(() => true), late])
  } finally {
    clearTimeout(timer)
    promise.catch(() => undefined) // one that fails after its time
  }
}
