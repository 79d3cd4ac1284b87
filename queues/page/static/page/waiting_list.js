// A long line of rows of one height, of which only those in sight (and a few around) are in the document.

import { attribute, h, keyed } from "./dom.js";

const AROUND = 6; // rows beyond each edge: the next ones that Tab reaches are there
const ALL = 12; // so few are shown without a window of their own

export class WaitingList {
  /** `make(item)` gives `{ element, .. }`, `update(row, item, index)` writes what has changed. */
  constructor(label, make, update) {
    Object.assign(this, { label, make, update, items: [] });
    this.list = h("ul", { class: "rows", role: "list" });
    this.element = h("div", { class: "window", onscroll: () => this.scrolled() }, this.list);
    this.resize = new ResizeObserver(() => this.scrolled());
    this.resize.observe(this.element);
  }

  show(items) {
    this.items = items;
    this.draw();
  }

  scrolled() {
    if (this.due) return;
    this.due = true;
    requestAnimationFrame(() => { this.due = false; this.draw(); });
  }

  draw() {
    const { items, element, list } = this;
    const long = items.length > ALL;
    attribute(element, "tabindex", long ? 0 : null);
    attribute(element, "role", long ? "region" : null);
    attribute(element, "aria-label", long ? this.label : null);
    element.classList.toggle("long", long);
    this.height ??= parseFloat(getComputedStyle(element).getPropertyValue("--row")) || 64;
    const shown = Math.ceil((element.clientHeight || 600) / this.height);
    const first = long ? Math.max(0, Math.floor(element.scrollTop / this.height) - AROUND) : 0;
    const last = long ? Math.min(items.length, first + shown + 2 * AROUND) : items.length;
    const total = long ? `${items.length * this.height}px` : "";
    if (list.style.height !== total) list.style.height = total;
    const before = long ? `${first * this.height}px` : "";
    if (list.style.paddingTop !== before) list.style.paddingTop = before;
    let index = first;
    keyed(list, items.slice(first, last), this.make, (row, item) => {
      attribute(row.element, "aria-setsize", items.length);
      attribute(row.element, "aria-posinset", index + 1);
      this.update(row, item, index++);
    });
  }
}
