// Before the first paint: whoever was signed in sees the queue's outline, not the way in.
try {
  if (localStorage.getItem("session")) document.documentElement.dataset.session = "yes";
} catch { /* no storage: the way in is right */ }
