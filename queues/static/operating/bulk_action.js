// Keeps the progress of a bulk action fresh until it is over.
"use strict";

const progress = document.getElementById("progress");

async function renew() {
  try {
    const answer = await fetch(location.href);
    if (answer.ok) {
      const found = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("progress");
      if (!found || "over" in found.dataset) return location.reload();
      progress.replaceChildren(...found.childNodes);
    }
  } catch {
    // The server may be away for a moment.
  }
  setTimeout(renew, 1000);
}

if (progress && !("over" in progress.dataset)) setTimeout(renew, 1000);
