/** Lists that the server returns in pages. */

/** The number of items in a page when the caller gives none: the most that the server returns. */
const PAGE_SIZE = 1000;

/** One page, and the token of the next page: empty on the last one. */
export interface Page<M> {
  readonly items: readonly M[];
  readonly next: string;
}

/**
 * A list that is read page by page while a `for await` loop needs more items. Each loop reads the list again.
 *
 * @example
 * ```ts
 * for await (const pool of client.listPools()) console.log(pool.name);
 * const pools = await client.listPools().toArray();
 * ```
 */
export class PagedList<T> implements AsyncIterable<T> {
  readonly #read: () => AsyncGenerator<T, void, undefined>;

  /** @internal Lists come from a client or a sandbox. */
  constructor(read: () => AsyncGenerator<T, void, undefined>) {
    this.#read = read;
  }

  /** Returns an iterator over all items. */
  [Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    return this.#read();
  }

  /** Reads all items into an array. */
  async toArray(): Promise<T[]> {
    const items: T[] = [];
    for await (const item of this) items.push(item);
    return items;
  }
}

/** Returns a list whose pages `read` reads and whose items `convert` converts. */
export function paged<M, T>(
  pageSize: number | undefined,
  read: (page: { readonly pageSize: number; readonly pageToken: string }) => Promise<Page<M>>,
  convert: (message: M) => T,
): PagedList<T> {
  return new PagedList(async function* () {
    for (let pageToken = ""; ; ) {
      const page = await read({ pageSize: pageSize ?? PAGE_SIZE, pageToken });
      yield* page.items.map(convert);
      if (page.next === "") return;
      pageToken = page.next;
    }
  });
}
