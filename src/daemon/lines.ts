/** JSON objects over a stream, one a line. A line that is too long or no JSON ends the conversation. */
import type { Socket } from 'node:net'

const LINE_BYTES_MAX = 1024 * 1024

export function sendLine(socket: Socket, value: unknown): void {
  if (socket.writable) socket.write(`${JSON.stringify(value)}\n`)
}

/** Calls `onValue` for each line; destroys the socket when what comes is not JSON or has no end. */
export function receiveLines(socket: Socket, onValue: (value: unknown) => void): void {
  let rest = ''
  socket.setEncoding('utf8')
  socket.on('data', (text: string) => {
    rest += text
    for (let end = rest.indexOf('\n'); end >= 0; end = rest.indexOf('\n')) {
      const line = rest.slice(0, end)
      rest = rest.slice(end + 1)
      let value: unknown
      try {
        value = JSON.parse(line)
      } catch {
        socket.destroy()
        return
      }
      onValue(value)
    }
    if (rest.length > LINE_BYTES_MAX) socket.destroy()
  })
}
