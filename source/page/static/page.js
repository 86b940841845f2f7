"use strict";
// What cannot be done on the server: players that go together, and what must survive a part of the page being replaced.

// A part that is brought up to date keeps what people opened.
if (window.Idiomorph) {
  Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, node) => !(name === "open" && node.tagName === "DETAILS");
}

// -- lists that are followed: at their end as long as nobody scrolled away -------------------------------------------

const atEnd = new WeakMap();

function isAtEnd(list) {
  return list.scrollHeight - list.scrollTop - list.clientHeight < 24;
}

function followEnds() {
  for (const list of document.querySelectorAll("[data-follow]")) {
    if (!atEnd.has(list)) {
      atEnd.set(list, true);
      list.addEventListener("scroll", () => atEnd.set(list, isAtEnd(list)), { passive: true });
    }
    if (atEnd.get(list)) list.scrollTop = list.scrollHeight;
  }
}

// -- players ----------------------------------------------------------------------------------------------------------

// All videos of a group play, pause and seek with the first one that is used.
let leading = false;

function together(group, change) {
  if (leading) return;
  leading = true;
  group.querySelectorAll("video").forEach(change);
  // what was done to the others is told by events that come later
  setTimeout(() => { leading = false; }, 60);
}

function playGroup(button) {
  const group = button.closest("[data-players]");
  const videos = [...group.querySelectorAll("video")];
  const playing = videos.some((video) => !video.paused);
  together(group, (video) => {
    if (playing) return video.pause();
    if (videos.some((each) => each.ended)) video.currentTime = 0;
    else video.currentTime = videos[0].currentTime;
    return video.play();
  });
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-play]");
  if (button) playGroup(button);
});

document.addEventListener("change", (event) => {
  if (!event.target.matches("[data-loop]")) return;
  event.target.closest("[data-players]").querySelectorAll("video").forEach((video) => { video.loop = event.target.checked; });
});

for (const name of ["play", "pause", "seeked"]) {
  document.addEventListener(name, (event) => {
    const video = event.target;
    const group = video.closest && video.closest("[data-players]");
    if (!group || video.ended) return;
    const button = group.querySelector("[data-play]");
    if (button) button.textContent = video.paused ? "Play together" : "Pause";
    together(group, (other) => {
      if (other === video) return;
      if (name === "seeked" || name === "play") {
        if (Math.abs(other.currentTime - video.currentTime) > 0.05) other.currentTime = video.currentTime;
      }
      if (name === "play" && other.paused) other.play();
      if (name === "pause" && !other.paused) other.pause();
    });
  }, true);
}

document.addEventListener("ended", (event) => {
  const group = event.target.closest && event.target.closest("[data-players]");
  const button = group && group.querySelector("[data-play]");
  if (button && [...group.querySelectorAll("video")].every((video) => video.paused)) button.textContent = "Play together";
}, true);

document.addEventListener("DOMContentLoaded", followEnds);
document.addEventListener("htmx:afterSettle", followEnds);
