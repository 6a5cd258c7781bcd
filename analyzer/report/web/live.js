"use strict";
// Served while the store grows: ask now and then whether there is a newer snapshot; the view is in the fragment, so it stays.
setInterval(async () => {
  const answer = await fetch("snapshot").catch(() => null);
  if (answer?.ok && (await answer.text()) !== document.body.dataset.live) location.reload();
}, 3000);
