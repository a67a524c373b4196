@echo off
rem The resident watch script (CLUSTERPRO application resource) in mode supervise: watch.bat [SERVICE]. Settings: lib.bat.
rem Lives as long as the service is healthy; its end makes the application monitor act (G22). It ends with dcstatus's own code: the one that
rem the watch hook saw and left in watch\<service>.code, or, whenever the hook ends in any other way, the one that it polls for itself.
setlocal EnableExtensions DisableDelayedExpansion
set "ds_script=watch"
set "ds_here=%~dp0"
call "%ds_here%lib.bat" :begin
if errorlevel 1 exit /b 1
set "ds_service=%~1"
if not defined ds_service for %%s in (%DCSUP_SERVICES%) do set "ds_service=%%s"
set "ds_key=%ds_service:-=_%"
call set ds_status=%%DCSUP_STATUS_%ds_key%%%
if exist dcsup.bypass goto :plain
if not defined ds_boot goto :plain
if not defined ds_tag goto :plain
del /q "watch\%ds_service%.code" "watch\%ds_service%.hook" >nul 2>&1
set "ds_sign=watch\%ds_service%.pulse"
set "ds_watched=watch\%ds_service%.hook"
>"%ds_sign%" echo 0
set ds_line=%DCSUP% hook watch --folder "%DCSUP_FOLDER%" --service %ds_service% --boot %ds_boot% --parent-file "%DCSUP_FOLDER%\%ds_sign%"
set ds_line=%ds_line% --interval %DCSUP_INTERVAL% --poll-limit %DCSUP_POLL_LIMIT% --confirm %DCSUP_CONFIRM% -- %ds_status%
call "%ds_here%lib.bat" :bounded 0
if not "%ds_code%"=="40" goto :plain
set "ds_end_code="
if exist "watch\%ds_service%.code" <"watch\%ds_service%.code" set /p ds_end_code=
if not defined ds_end_code goto :plain
for /f "delims=0123456789" %%x in ("%ds_end_code%") do goto :plain
if "%ds_end_code%"=="0" set "ds_end_code=1"
exit /b %ds_end_code%

rem the guide's loop. A dcstatus that does not return is unknown, and the guide would wait too.
:plain
"%ComSpec%" /d /s /c "%%ds_status%%" <nul
set "ds_code=%errorlevel%"
if not "%ds_code%"=="0" exit /b %ds_code%
call "%ds_here%lib.bat" :pause %DCSUP_INTERVAL%
goto :plain
