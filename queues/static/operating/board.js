// Puts a new board in the place of the old one every few seconds, while somebody looks.
"use strict";

const EVERY = 5000;
const board = document.getElementById("board");

async function renew() {
  if (!document.hidden) {
    try {
      const signal = AbortSignal.timeout(10000);
      const answer = await fetch(board.dataset.from, { redirect: "error", signal });
      if (!answer.ok) throw new Error(answer.statusText);
      board.innerHTML = await answer.text();
      board.classList.remove("old");
    } catch {
      board.classList.add("old"); // shown as what it is: no longer so
    }
  }
  setTimeout(renew, EVERY);
}

setTimeout(renew, EVERY);
