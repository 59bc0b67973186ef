"use strict";
(function () {
  var video = document.getElementById("video");
  var message = document.getElementById("video-message");
  var lanes = document.getElementById("lanes");
  var playhead = document.getElementById("playhead");
  var duration = Number(document.querySelector("main").dataset.duration);
  var played = Array.prototype.slice.call(document.querySelectorAll("[data-start]"));
  var stopAt = null;

  function say(text) {
    message.textContent = text;
    message.hidden = false;
  }

  // A blob, because not every browser seeks in a data: address.
  var embedded = document.getElementById("video-data");
  if (embedded) {
    var text = atob(embedded.textContent.trim());
    var bytes = new Uint8Array(text.length);
    for (var i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
    embedded.remove();
    video.src = URL.createObjectURL(new Blob([bytes], { type: embedded.dataset.type }));
  }
  if (!video.getAttribute("src")) say("This page was written without its video.");
  video.addEventListener("error", function () {
    say("The browser cannot play this video's format. The timeline still holds.");
  });

  function show(seconds) {
    playhead.style.left = Math.min(100, (100 * seconds) / duration) + "%";
    played.forEach(function (element) {
      var inside = seconds >= Number(element.dataset.start) && seconds < Number(element.dataset.end);
      if (inside) element.setAttribute("aria-current", "true");
      else element.removeAttribute("aria-current");
    });
  }

  function seek(seconds) {
    show(seconds);
    if (video.readyState > 0) video.currentTime = seconds;
  }

  function play(start, end) {
    stopAt = end;
    seek(start);
    var started = video.play();
    if (started) started.catch(function () {});
  }

  played.forEach(function (element) {
    element.addEventListener("click", function (event) {
      event.stopPropagation();
      play(Number(element.dataset.start), Number(element.dataset.end));
    });
  });

  lanes.addEventListener("click", function (event) {
    var track = event.target.closest(".track");
    if (!track) return;
    var box = track.getBoundingClientRect();
    stopAt = null;
    seek((duration * (event.clientX - box.left)) / box.width);
  });

  function follow() {
    if (stopAt !== null && video.currentTime >= stopAt) {
      video.pause();
      stopAt = null;
    }
    show(video.currentTime);
    if (!video.paused) requestAnimationFrame(follow);
  }
  video.addEventListener("play", follow);
  video.addEventListener("timeupdate", function () {
    if (video.paused) show(video.currentTime);
  });
})();
