/** Lists, which the server answers in pages. */

/** The most that a page holds. */
export const PAGE_SIZE = 1000;

/** One page, and the token of the one after: empty on the last. */
export interface Page<T> {
  readonly items: T[];
  readonly next: string;
}

/** All items of all pages. */
export async function allPages<T>(read: (pageToken: string) => Promise<Page<T>>): Promise<T[]> {
  const all: T[] = [];
  for (let token = ""; ; ) {
    const page = await read(token);
    all.push(...page.items);
    if (page.next === "") return all;
    token = page.next;
  }
}
