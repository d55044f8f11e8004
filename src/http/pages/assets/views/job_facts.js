// What people ask next: why is it not done, what failed, who holds what. Asked for plainly, a little behind the tally.

import { getIfThere } from '../api.js';
import { h, keyed, setText, show } from '../dom.js';
import { FINAL, ago, count, duration, plural, roughly } from '../format.js';
import { table } from '../table.js';

/** While a job goes on, its facts are asked for so often. */
const EVERY_MS = 3000;

const untilMoment = (moment) => Math.max((Date.parse(moment) - Date.now()) / 1000, 0);
