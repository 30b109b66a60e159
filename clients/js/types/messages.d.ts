/** Returns a size in the units of limits and quotas: 1 KiB is 1024 bytes. */
export function bytes(n: any): string;
/** Returns one or two sentences about a problem. */
export function explain(problem: any): any;
export function count(n: any, singular: any, plural?: string): string;
