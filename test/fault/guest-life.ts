/** What a guest does between mount and suspend, and what still has to work while a thread hangs on the share. */
import { constants } from 'node:fs'
import { messageOf } from '../../src/base/errors.js'
import { PAGE_BYTES, ROOT_INODE } from '../../src/base/units.js'
import type { FaultyProcess } from './faulty-process.js'
import { type Bed, type MountOptions, Mounted, mustBeAnswer } from './life.js'
import { type Model, ModelFile, staleIn } from './model.js'

export type Contents = Map<string, Buffer>

export const DISK_PAGES = 40
/** more than travel in the journal, in two blocks */
const BURST_PAGES = 18
const BURST_FIRST_PAGE = 22
const WRITES_WHILE_UPLOADING = 4
const STEPS_BETWEEN_WRITES = 12
/** a page that only changes while something hangs */
const HANG_PAGE = 21
const HANG_VALUE = 2000
const LOOK_MS_MAX = 10_000
/** longer than a suspend waits for what is not necessary, by the clock of these processes */
const HANG_MS = [0, 100]

export interface GuestOptions {
  readonly bed: Bed
  readonly model: Model
  readonly mounting: MountOptions
  /** what the mount showed when it was asked for a checkpoint; undefined: it is asked for none */
  readonly checkpoints: Contents[] | undefined
  readonly found: string[]
}

export class GuestLife {
  /** what request threads have answered until the suspend */
  byThreads: Mounted['byThreads'] = { reads: 0, writes: 0 }
  readonly #options: GuestOptions
  #mounted: Mounted | undefined
  /** nothing may change: it is compared with what comes of it */
  #isStill = false
  #looking: Promise<void> | undefined

  constructor(options: GuestOptions) {
    this.#options = options
  }

  /** Every value is written once; what must not be lost is not written again. */
  async untilSuspend(): Promise<Mounted> {
    const { bed, model, mounting } = this.#options
    const mounted = await Mounted.open(bed, mounting)
    this.#mounted = mounted
    const { tree } = mounted
    const disk = await this.#open(mounted, 'disk')
    let burst = 0
    /** so many pages that their sync goes to the region file, and then more writes, which request threads may do */
    const again = async (page: number, ...values: number[]): Promise<void> => {
      if (disk === undefined || mounting.threads === undefined) return
      burst += 100
      const many = Array.from({ length: BURST_PAGES }, (_, index) => 3000 + burst + index)
      await mounted.writeMany(model, 'disk', disk, BURST_FIRST_PAGE, many)
      for (const value of values) await mounted.write(model, 'disk', disk, page, value)
    }
    if (disk !== undefined) {
      await mounted.contents().catch(mustBeAnswer)
      await mounted.write(model, 'disk', disk, 0, 1000)
      await mounted.write(model, 'disk', disk, 33, 1001)
      await this.#prepare(mounted, disk)
      await again(0, 1010, 1011)
      await mounted.fsync(model, 'disk', disk, async () => {
        await again(33, 1012, 1013)
        await mounted.write(model, 'disk', disk, 0, 1014)
      })
      mounted.vm.cache.evict(Number.MAX_SAFE_INTEGER)
      await mounted.writeHalves(model, 'disk', disk, 7, 1002)
      await mounted.write(model, 'disk', disk, 0, 1003)
    }
    const made = { fresh: 'fresh' }
    model.files.set('fresh', new ModelFile())
    const isMade = mounted.change(model, made, () => {
      tree.create(ROOT_INODE, 'fresh', { mode: 0o600, uid: 0, gid: 0 })
    })
    const fresh = isMade ? await this.#open(mounted, 'fresh') : undefined
    if (fresh !== undefined) {
      await mounted.write(model, 'fresh', fresh, 0, 1004)
      await mounted.write(model, 'fresh', fresh, 1, 1005)
      await mounted.fsync(model, 'fresh', fresh)
    }
    if (mounting.threads !== undefined) await this.#uploadMeanwhile(mounted, disk, again)
    await mounted.upload().catch(mustBeAnswer)
    if (disk !== undefined) await mounted.write(model, 'disk', disk, 0, 1006)
    await again(0, 1015)
    if (mounting.threads !== undefined) await mounted.trickle()
    await again(0, 1016, 1017)
    if (isMade) {
      mounted.change(model, { fresh: undefined, renamed: 'fresh' }, () => {
        tree.rename(ROOT_INODE, 'fresh', ROOT_INODE, 'renamed', 0)
      })
    }
    mounted.change(model, { gone: undefined }, () => {
      tree.unlink(ROOT_INODE, 'gone')
    })
    await again(2, 1018, 1019)
    if (disk !== undefined) {
      await mounted.fsync(model, 'disk', disk)
      // of a region that is clean: a sync that had not ended the threads' writes would leave this one out
      await mounted.write(model, 'disk', disk, 2, 1022)
      await mounted.fsync(model, 'disk', disk)
      await mounted.write(model, 'disk', disk, DISK_PAGES, 1007)
      await mounted.write(model, 'disk', disk, 3, 1008)
    }
    await again(0, 1020)
    await this.#checkpoint(mounted)
    // of a block that was sent: a checkpoint that had not ended the threads' writes would leave this one out
    if (disk !== undefined) await mounted.write(model, 'disk', disk, 0, 1023)
    if (mounting.threads !== undefined) await this.#compare(mounted)
    await this.#checkpoint(mounted)
    if (disk !== undefined) {
      await mounted.write(model, 'disk', disk, 3, 1009)
      await mounted.fsync(model, 'disk', disk)
    }
    await again(3, 1021)
    this.#close(mounted, fresh)
    this.#close(mounted, disk)
    this.byThreads = mounted.byThreads
    this.#mounted = undefined
    await this.#looking
    return mounted
  }

  /** Once a thread of the process hangs: what is here is read, whole pages are written and synced. Then it hangs no more. */
  async lookWhileHanging(process: FaultyProcess): Promise<void> {
    const { found } = this.#options
    await process.hanging
    this.#looking = process.run(async () => {
      try {
        if (this.#mounted !== undefined) await this.#useWhatIsHere(this.#mounted)
      } catch (error) {
        if (!process.isDead) found.push(`while a thread hung on the share: ${messageOf(error)}`)
      }
    })
    const late = new Promise<'late'>((resolve) => setTimeout(() => resolve('late'), LOOK_MS_MAX).unref())
    if ((await Promise.race([this.#looking, process.ended, late])) === 'late')
      found.push('what is here waits for a thread that hangs on the share')
    const hangMs = HANG_MS[(this.#options.mounting.threads?.seed ?? 0) % HANG_MS.length]
    await new Promise((resolve) => setTimeout(resolve, hangMs))
    process.release()
  }

  async #useWhatIsHere(mounted: Mounted): Promise<void> {
    const { model, found, mounting } = this.#options
    found.push(...(await mounted.staleOfPresent(model, 'disk')))
    const handle = await this.#open(mounted, 'disk')
    if (handle === undefined || this.#isStill) return
    await mounted.write(model, 'disk', handle, HANG_PAGE, HANG_VALUE)
    // a sync notes what threads have written, which what hangs has to find out by itself
    if (mounting.threads?.below(2) !== 0) await mounted.fsync(model, 'disk', handle)
    this.#close(mounted, handle)
  }

  async #open({ tree }: Mounted, name: string): Promise<number | undefined> {
    try {
      return await tree.open(tree.lookup(ROOT_INODE, name).inode, constants.O_RDWR)
    } catch (error) {
      mustBeAnswer(error)
      return undefined
    }
  }

  #close({ tree }: Mounted, handle: number | undefined): void {
    try {
      if (handle !== undefined) tree.release(handle)
    } catch (error) {
      mustBeAnswer(error)
    }
  }

  /** What is written while something hangs can be written by a request thread. */
  async #prepare(mounted: Mounted, disk: number): Promise<void> {
    await this.#looking
    this.#isStill = true
    await mounted.write(this.#options.model, 'disk', disk, HANG_PAGE, HANG_VALUE - 1)
    this.#isStill = false
  }

  /** Uploads while request threads write, between any two steps of it. */
  async #uploadMeanwhile(
    mounted: Mounted,
    disk: number | undefined,
    again: (page: number, ...values: number[]) => Promise<void>
  ): Promise<void> {
    const { model, mounting } = this.#options
    await again(1, 1030)
    const uploading = mounted.upload()
    uploading.catch(() => undefined)
    for (let value = 1031; disk !== undefined && value < 1031 + WRITES_WHILE_UPLOADING; value++) {
      for (let steps = mounting.threads?.below(STEPS_BETWEEN_WRITES) ?? 0; steps > 0; steps--) await Promise.resolve()
      await mounted.write(model, 'disk', disk, 1, value)
    }
    await uploading.catch(mustBeAnswer)
  }

  /** A read brings what was written last, whoever answers it. */
  async #compare(mounted: Mounted): Promise<void> {
    const { model, found } = this.#options
    this.#isStill = true
    try {
      const disk = (await mounted.contents()).get('disk') ?? Buffer.alloc(0)
      const file = model.files.get('disk')
      for (let page = 0; file !== undefined && (page + 1) * PAGE_BYTES <= disk.length; page++)
        found.push(...staleIn(file, page, disk.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES)))
    } catch (error) {
      mustBeAnswer(error)
    } finally {
      this.#isStill = false
    }
  }

  async #checkpoint(mounted: Mounted): Promise<void> {
    const { checkpoints } = this.#options
    if (checkpoints === undefined) return
    this.#isStill = true
    try {
      checkpoints.push(await mounted.contents())
      await mounted.checkpoint()
    } catch (error) {
      mustBeAnswer(error)
    } finally {
      this.#isStill = false
    }
  }
}
