/** What a person is told when this client's own disk does not do what it should. */
import { errnoOf, FailedError, IsrfsError, messageOf } from '../base/errors.js'

/** Rejects as `body` does, but with FailedError where a file system call of this client has failed. */
export async function onClientDisk<Result>(clientDirectory: string, body: () => Promise<Result>): Promise<Result> {
  try {
    return await body()
  } catch (error) {
    if (error instanceof IsrfsError || errnoOf(error) === undefined) throw error
    throw new FailedError(`the client directory ${clientDirectory} cannot be used: ${messageOf(error)}`, {
      hint: 'what was accepted is still in it: mend the cause (a full or broken disk, permissions), then repeat the command',
      cause: error
    })
  }
}
