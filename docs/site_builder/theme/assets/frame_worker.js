/* Search in pages that were opened from a folder.

Browsers start no Web Worker for a page at a file:// address. This class offers the interface of a worker there, and runs
the script of the worker in a hidden frame of the page. */
"use strict";
(() => {
  /** Append a script to a document; the promise is fulfilled when the script has run. */
  function load(target, address) {
    return new Promise((resolve, reject) => {
      const script = target.createElement("script");
      script.src = address;
      script.onload = resolve;
      script.onerror = () => reject(new Error(`${address} cannot be loaded`));
      target.body.append(script);
    });
  }

  class FrameWorker extends EventTarget {
    constructor(address) {
      super();
      this.onmessage = null;
      this.onerror = null;
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inside = this.frame.contentWindow;
      inside.document.open();
      inside.document.write("<!doctype html><body></body>");
      inside.document.close();
      // What the script of a worker expects to find: these two functions.
      inside.postMessage = (data) => this.pass(new MessageEvent("message", { data: structuredClone(data) }));
      inside.importScripts = (...addresses) =>
        addresses.reduce((before, next) => before.then(() => load(inside.document, next)), Promise.resolve());
      this.started = load(inside.document, address);
      this.started.catch((error) => this.pass(new ErrorEvent("error", { error, message: error.message })));
    }

    /** Hand an event to the page. */
    pass(event) {
      this.dispatchEvent(event);
      const handler = this[`on${event.type}`];
      if (handler) handler.call(this, event);
    }

    postMessage(data) {
      this.started.then(() => {
        const copy = structuredClone(data);
        this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data: copy }));
      });
    }

    terminate() {
      this.frame.remove();
    }
  }

  if (location.protocol === "file:") window.Worker = FrameWorker;
})();
