// Small helps that no page needs in order to be read.
"use strict";
